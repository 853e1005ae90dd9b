-- How matches are found, ranked and shown. All of it runs with the rights of the tables' owner and looks only at the
-- broadcasters that the caller may see.

CREATE FUNCTION public.visible_broadcasters() RETURNS integer[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller CONSTANT text := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
    narrowed CONSTANT text := nullif(current_setting('fonoteca.broadcaster', true), '');
    visible integer[];
BEGIN
    -- the tables' owner, and who has its rights, sees all
    IF NOT pg_has_role(caller, (SELECT relowner FROM pg_class WHERE oid = 'public.broadcasters'::regclass), 'USAGE') THEN
        SELECT CASE WHEN u.broadcaster_id IS NULL THEN NULL ELSE ARRAY[u.broadcaster_id] END INTO visible
        FROM public.sql_users u WHERE u.role_name = caller;
        IF NOT FOUND THEN
            visible := '{}';
        END IF;
    END IF;
    IF narrowed IS NOT NULL THEN
        visible := ARRAY(SELECT b.id FROM public.broadcasters b
                         WHERE b.name = narrowed AND (visible IS NULL OR b.id = ANY (visible)));
    END IF;
    RETURN visible;
END $$;
COMMENT ON FUNCTION public.visible_broadcasters() IS
    'Ids of the broadcasters whose rows the caller may see; NULL: all of them.';

-- A query as people write it: words, "a phrase", -without, begin*.
CREATE FUNCTION public.search_parse(
    query text,
    OUT match tsquery, OUT rank_by tsquery, OUT pairs integer[],
    OUT forms text[], OUT stems text[], OUT prefixes text[], OUT phrases text[], OUT has_wide_prefix boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most_words CONSTANT integer := 30;  -- a beginning is looked up as the words that begin so, up to this many
    last_sign CONSTANT text := chr(1114111);
    item record;
    tokens text[];
    words text[];  -- the tokens, folded
    own_stems text[];
    begun text[];
    one text[];
    one_rank text[];
    all_match text[] := '{}';
    all_rank text[] := '{}';
    n_words integer := 0;
BEGIN
    pairs := '{}'; forms := '{}'; stems := '{}'; prefixes := '{}'; phrases := '{}'; has_wide_prefix := false;
    IF query IS NULL OR char_length(query) > 1000 THEN
        RAISE EXCEPTION 'a search takes 1 to 1,000 characters: write one, or shorten it'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR item IN
        SELECT coalesce(m.part[1], m.part[3]) = '-' AS negated, coalesce(m.part[2], m.part[4]) AS body,
               m.part[2] IS NOT NULL AS quoted
        FROM regexp_matches(regexp_replace(normalize(translate(query, '“”«»', '""""'), NFC), '[\u0300-\u036f]', '', 'g')
                            COLLATE "pg_c_utf8",
                            '(-?)"([^"]*)"?|(-?)([^\s"]+)', 'g') AS m (part)
    LOOP
        SELECT array_agg(t.word ORDER BY t.place), array_agg(left(public.search_fold(t.word), 64) ORDER BY t.place)
        INTO tokens, words
        FROM public.search_tokens(item.body) t WHERE public.search_fold(t.word) <> '';
        CONTINUE WHEN tokens IS NULL;
        one := '{}';
        one_rank := '{}';
        IF item.quoted THEN
            one := ARRAY[array_to_string(words, ' <-> ')];
            one_rank := one;
            IF NOT item.negated THEN
                phrases := phrases || array_to_string(words, ' ');
                FOR n IN 2 .. cardinality(words) LOOP
                    pairs := pairs || public.search_pair(words[n - 1], words[n]);
                END LOOP;
            END IF;
        ELSE
            FOR n IN 1 .. cardinality(words) LOOP
                IF n = cardinality(words) AND item.body LIKE '%*' THEN
                    IF char_length(words[n]) < 2 THEN
                        RAISE EXCEPTION 'the beginning %* is too short: write two letters or more before the *', words[n]
                            USING ERRCODE = 'invalid_parameter_value';
                    END IF;
                    begun := ARRAY(
                        SELECT x.word FROM (
                            (SELECT w.word FROM public.search_words w
                             WHERE w.word >= words[n] AND w.word < words[n] || last_sign LIMIT most_words + 1)
                            UNION
                            (SELECT w.word FROM public.search_new_words w
                             WHERE w.word >= words[n] AND w.word < words[n] || last_sign LIMIT most_words + 1)) x);
                    one_rank := one_rank || (words[n] || ':*');
                    IF cardinality(begun) > most_words THEN
                        has_wide_prefix := true;
                        one := one || (words[n] || ':*');
                    ELSE
                        one := one || ('(' || array_to_string(begun || words[n], ' | ') || ')');
                    END IF;
                    IF NOT item.negated THEN
                        prefixes := prefixes || words[n];
                    END IF;
                ELSE
                    own_stems := public.search_stems(tokens[n]);
                    one := one || ('(' || words[n] || ' | ~' || array_to_string(own_stems, ' | ~') || ')');
                    one_rank := one_rank || one[cardinality(one)];
                    IF NOT item.negated THEN
                        forms := forms || words[n];
                        stems := stems || own_stems;
                    END IF;
                END IF;
            END LOOP;
        END IF;
        IF item.negated THEN
            all_match := all_match || ('!(' || array_to_string(one, ' & ') || ')');
        ELSE
            all_match := all_match || ('(' || array_to_string(one, ' & ') || ')');
            all_rank := all_rank || ('(' || array_to_string(one_rank, ' & ') || ')');
        END IF;
        n_words := n_words + cardinality(words);
        IF n_words > 100 THEN
            RAISE EXCEPTION 'a search takes up to 100 words: shorten it' USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    IF cardinality(all_rank) = 0 THEN
        RAISE EXCEPTION 'a search needs a word to look for: write one without - before it'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    match := array_to_string(all_match, ' & ')::tsquery;
    rank_by := array_to_string(all_rank, ' & ')::tsquery;
END $$;
COMMENT ON FUNCTION public.search_parse(text) IS
    'A query as what to look up (match, pairs), what to rank by, and what to mark in a text.';

-- Filters as lexemes of the document, so that the index answers them together with the words.
CREATE FUNCTION public.search_facets(broadcaster text, programme text, from_on date, to_on date, model text)
    RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    visible CONSTANT integer[] := public.visible_broadcasters();
    chosen integer[] := visible;
    models integer[];
    found text[] := '{}';
    spans text[] := '{}';
    first date;
    last date;
BEGIN
    IF broadcaster IS NOT NULL THEN
        chosen := ARRAY(SELECT b.id FROM public.broadcasters b
                        WHERE b.name = broadcaster AND (visible IS NULL OR b.id = ANY (visible)));
    END IF;
    IF cardinality(chosen) = 0 OR from_on > to_on THEN
        RETURN NULL;
    END IF;
    IF chosen IS NOT NULL THEN
        found := found || ('(/b' || array_to_string(chosen, ' | /b') || ')');
    END IF;
    IF programme IS NOT NULL THEN
        found := found || public.search_programme_facet(programme);
    END IF;
    IF model IS NOT NULL THEN
        models := ARRAY(SELECT m.id FROM public.models m WHERE m.name = model);
        IF cardinality(models) = 0 THEN
            RETURN NULL;
        END IF;
        found := found || ('(/m' || array_to_string(models, ' | /m') || ')');
    END IF;
    IF from_on IS NOT NULL OR to_on IS NOT NULL THEN
        -- whole decades, then whole years, then months; days inside the first and last month are told by said_on
        first := date_trunc('month', public.search_day(coalesce(from_on, '-infinity')));
        last := date_trunc('month', public.search_day(coalesce(to_on, 'infinity'))) + interval '1 month';
        WHILE first < last LOOP
            IF extract(month FROM first) = 1 AND extract(year FROM first)::integer % 10 = 0
                    AND first + interval '10 years' <= last THEN
                spans := spans || ('/c' || extract(year FROM first)::integer / 10);
                first := first + interval '10 years';
            ELSIF extract(month FROM first) = 1 AND first + interval '1 year' <= last THEN
                spans := spans || ('/y' || to_char(first, 'YYYY'));
                first := first + interval '1 year';
            ELSE
                spans := spans || ('/d' || to_char(first, 'YYYYMM'));
                first := first + interval '1 month';
            END IF;
        END LOOP;
        found := found || ('(' || array_to_string(spans, ' | ') || ')');
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION public.search_facets(text, text, date, date, text) IS
    'Filters and the caller''s rights as parts of a query; NULL: nothing can match.';

-- The newest n matches below a segment id, newest first. A word that millions of segments hold must not cost millions
-- of rows, and a word that only old segments hold must not cost a walk over all newer ones:
--   few matches by the planner's estimate: all of them through the index;
--   else windows of ids, newest first, as part of the query (/w 4,096 ids, /v 32,768, /u 262,144, /t 2,097,152):
--   wider while little is found, narrower again where much is.
-- `like_match` is what the estimate is asked for: beginnings as beginnings, of which statistics know more than of a
-- hundred words that begin so. `segment_id + 0` keeps the planner from reading the primary key for half of the table beside it.
CREATE FUNCTION public.search_newest(
    match tsquery, like_match tsquery, pairs integer[], from_on date, to_on date, below bigint, n integer,
    has_wide_prefix boolean)
    RETURNS bigint[] LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp SET jit = off SET max_parallel_workers_per_gather = 0
    SET plan_cache_mode = force_generic_plan  -- the windows' plan is always the index: planned once, not per window
AS $$
DECLARE
    few CONSTANT integer := 20000;  -- rows read within the time that a search may take
    dense CONSTANT integer := 3000;  -- more in one window than a search wants: look at a narrower one
    shifts CONSTANT integer[] := '{12,15,18,21}';
    names CONSTANT text[] := '{/w,/v,/u,/t}';
    widest integer := 4;
    level integer := 1;
    plan json;
    estimate double precision;
    ids bigint[];
    found bigint[] := '{}';
    lowest bigint;
    place bigint;
    span bigint;
    windowed tsquery;
BEGIN
    EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM public.search_segments WHERE doc @@ %L::tsquery', like_match) INTO plan;
    estimate := (plan -> 0 -> 'Plan' ->> 'Plan Rows')::double precision;
    IF cardinality(pairs) > 0 THEN
        -- words of a phrase may be common, and follow each other seldom
        EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM public.search_segments WHERE pairs @> %L::integer[]', pairs)
            INTO plan;
        estimate := least(estimate, (plan -> 0 -> 'Plan' ->> 'Plan Rows')::double precision);
    END IF;
    IF estimate <= few THEN
        IF cardinality(pairs) > 0 THEN
            ids := ARRAY(SELECT i.segment_id FROM public.search_segments i
                         WHERE i.doc @@ match AND i.pairs @> search_newest.pairs AND i.segment_id + 0 < below
                           AND (from_on IS NULL OR i.said_on >= from_on) AND (to_on IS NULL OR i.said_on <= to_on)
                         LIMIT few + 1);
        ELSE
            ids := ARRAY(SELECT i.segment_id FROM public.search_segments i
                         WHERE i.doc @@ match AND i.segment_id + 0 < below
                           AND (from_on IS NULL OR i.said_on >= from_on) AND (to_on IS NULL OR i.said_on <= to_on)
                         LIMIT few + 1);
        END IF;
        IF cardinality(ids) <= few THEN
            RETURN ARRAY(SELECT f.id FROM unnest(ids) AS f (id) ORDER BY f.id DESC LIMIT n);
        END IF;
    END IF;
    SELECT min(i.segment_id), least(max(i.segment_id) + 1, below) INTO lowest, place FROM public.search_segments i;
    IF has_wide_prefix THEN
        -- so many words begin so that looking each up costs more than reading the newest rows, where some are likely
        FOR step IN 1 .. 10 LOOP
            EXIT WHEN place <= lowest OR cardinality(found) >= n;
            found := found || ARRAY(
                SELECT i.segment_id FROM public.search_segments i
                WHERE i.segment_id >= place - 4096 AND i.segment_id < place AND (i.doc @@ match) IS TRUE
                  AND (from_on IS NULL OR i.said_on >= from_on) AND (to_on IS NULL OR i.said_on <= to_on));
            place := place - 4096;
        END LOOP;
        IF cardinality(found) < n AND place > lowest THEN
            found := found || ARRAY(
                SELECT i.segment_id FROM public.search_segments i
                WHERE i.doc @@ match AND i.segment_id + 0 < place
                  AND (from_on IS NULL OR i.said_on >= from_on) AND (to_on IS NULL OR i.said_on <= to_on));
        END IF;
        RETURN ARRAY(SELECT f.id FROM unnest(found) AS f (id) ORDER BY f.id DESC LIMIT n);
    END IF;
    IF estimate > 130000 THEN
        widest := 3;  -- a window full of matches must not hold more than can be gathered at once
    END IF;
    WHILE place > lowest AND cardinality(found) < n LOOP
        span := (place - 1) >> shifts[level];
        windowed := match && (names[level] || span)::tsquery;
        IF cardinality(pairs) > 0 THEN
            ids := ARRAY(SELECT i.segment_id FROM public.search_segments i
                         WHERE i.doc @@ windowed AND i.pairs @> search_newest.pairs AND i.segment_id + 0 < place
                           AND (from_on IS NULL OR i.said_on >= from_on) AND (to_on IS NULL OR i.said_on <= to_on)
                         LIMIT CASE WHEN level = 1 THEN NULL ELSE dense + 1 END);
        ELSE
            ids := ARRAY(SELECT i.segment_id FROM public.search_segments i
                         WHERE i.doc @@ windowed AND i.segment_id + 0 < place
                           AND (from_on IS NULL OR i.said_on >= from_on) AND (to_on IS NULL OR i.said_on <= to_on)
                         LIMIT CASE WHEN level = 1 THEN NULL ELSE dense + 1 END);
        END IF;
        IF level > 1 AND cardinality(ids) > dense THEN
            level := level - 1;
            CONTINUE;
        END IF;
        found := found || ids;
        place := span << shifts[level];
        IF level < widest AND cardinality(ids) * 4 <= dense AND place % (1::bigint << shifts[level + 1]) = 0 THEN
            level := level + 1;
        END IF;
    END LOOP;
    RETURN ARRAY(SELECT f.id FROM unnest(found) AS f (id) ORDER BY f.id DESC LIMIT n);
END $$;

CREATE FUNCTION public.search_snippet(content text, forms text[], stems text[], prefixes text[], phrases text[])
    RETURNS text LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    WITH tokens AS MATERIALIZED (
        SELECT t.place, t.gap, t.word, left(public.search_fold(t.word), 64) AS folded,
               left(lower(t.word COLLATE "pg_c_utf8"), 64) COLLATE "C" AS form
        FROM public.search_tokens(content) t
    ), words AS MATERIALIZED (
        SELECT array_agg(t.folded ORDER BY t.place) AS folded, array_agg(t.place ORDER BY t.place) AS places
        FROM tokens t WHERE t.word <> ''
    ), in_phrases AS MATERIALIZED (
        SELECT p.words[1] AS first_word, w.places[n] AS first, w.places[n + cardinality(p.words) - 1] AS last
        FROM words w
        CROSS JOIN (SELECT string_to_array(x, ' ') FROM unnest(phrases) x) AS p (words)
        CROSS JOIN LATERAL generate_series(1, cardinality(w.folded) - cardinality(p.words) + 1) n
        WHERE w.folded[n] = p.words[1] AND w.folded[n : n + cardinality(p.words) - 1] = p.words
    ), marked AS MATERIALIZED (
        SELECT t.place, t.gap, t.word,
               t.word <> '' AND (
                   t.folded = ANY (forms)
                   OR EXISTS (SELECT FROM unnest(prefixes) x WHERE t.folded ^@ x)
                   OR l.stems && search_snippet.stems
                   -- a stem begins as its word does: most words need not be stemmed
                   OR (l.form IS NULL AND EXISTS (SELECT FROM unnest(search_snippet.stems) x WHERE left(x, 2) = left(t.folded, 2))
                       AND public.search_unknown_stems(t.form) && search_snippet.stems)
                   OR EXISTS (SELECT FROM in_phrases h WHERE t.place BETWEEN h.first AND h.last)) AS is_hit
        FROM tokens t
        LEFT JOIN public.search_lexicon l ON l.form = t.form AND cardinality(search_snippet.stems) > 0
    ), shown AS (
        -- up to 40 words, the first hit not far from the beginning
        SELECT CASE WHEN max(m.place) <= 40 THEN 1
                    ELSE greatest(1, least(coalesce(min(m.place) FILTER (WHERE m.is_hit), 1) - 10,
                                           max(m.place) - 39)) END AS first,
               max(m.place) AS last
        FROM marked m
    )
    SELECT CASE WHEN s.first > 1 THEN '…' ELSE '' END
           || string_agg(CASE WHEN m.place = s.first AND s.first > 1 THEN ltrim(m.gap) ELSE m.gap END
                         || CASE WHEN m.is_hit THEN '<mark>' || m.word || '</mark>' ELSE m.word END, '' ORDER BY m.place)
           || CASE WHEN s.first + 39 < s.last THEN '…' ELSE '' END
    FROM marked m CROSS JOIN shown s
    WHERE m.place BETWEEN s.first AND s.first + 39
    GROUP BY s.first, s.last;
END;

-- views call it twice a row, and plpgsql is the quickest at it
CREATE FUNCTION archive.timecode(seconds numeric) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    ms CONSTANT bigint := abs(round(seconds * 1000));
BEGIN
    RETURN CASE WHEN seconds < 0 THEN '-' ELSE '' END || CASE WHEN ms < 36000000 THEN '0' ELSE '' END || ms / 3600000
           || ':' || lpad((ms / 60000 % 60)::text, 2, '0') || ':' || lpad((ms / 1000 % 60)::text, 2, '0')
           || '.' || lpad((ms % 1000)::text, 3, '0');
END $$;
COMMENT ON FUNCTION archive.timecode(numeric) IS 'Seconds as hh:mm:ss.mmm.';

CREATE TYPE archive.search_hit AS (
    rank real, segment_id bigint, recording_id uuid, recording text, broadcaster text, programme text,
    broadcast_on date, start_s numeric, end_s numeric, start_timecode text, snippet text, model text,
    is_demo_model boolean, cursor text);

CREATE TYPE archive.mention AS (
    segment_id bigint, recording_id uuid, broadcaster text, programme text, programme_kind text, broadcast_on date,
    said_on date);

CREATE FUNCTION archive.search(
    query text, broadcaster text DEFAULT NULL, programme text DEFAULT NULL, "from" date DEFAULT NULL,
    "to" date DEFAULT NULL, model text DEFAULT NULL, "limit" integer DEFAULT 20, after text DEFAULT NULL)
    RETURNS SETOF archive.search_hit
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER ROWS 20
    SET search_path = pg_catalog, pg_temp SET jit = off SET max_parallel_workers_per_gather = 0
    SET extra_float_digits = 1
    SET plan_cache_mode = force_generic_plan  -- else each snippet would be planned, which takes longer than making it
AS $$
#variable_conflict use_column
DECLARE
    round_size CONSTANT integer := 1000;
    parsed record;
    facets text[];
    looked_up tsquery;
    like_looked_up tsquery;
    parts text[];
    ceiling bigint := 9223372036854775807;
    after_rank real;
    after_id bigint;
    wanted integer := search."limit";
    returned integer;
    ids bigint[];
BEGIN
    IF wanted IS NULL OR wanted NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION 'a search gives 1 to 100 rows at a time, not %: read on with after => the last row''s cursor',
            coalesce(wanted::text, 'NULL') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF search.after IS NOT NULL THEN
        parts := regexp_match(search.after, '^(\d{1,18})~([0-9.e+-]{1,20})~(\d{1,18})$');
        IF parts IS NULL OR NOT pg_input_is_valid(parts[2], 'real') THEN
            RAISE EXCEPTION 'after does not hold a cursor that a search gave: pass the last row''s cursor as it is'
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        ceiling := parts[1];
        after_rank := parts[2];
        after_id := parts[3];
    END IF;
    SELECT * INTO parsed FROM public.search_parse(search.query);
    facets := public.search_facets(search.broadcaster, search.programme, search."from", search."to", search.model);
    IF facets IS NULL THEN
        RETURN;
    END IF;
    looked_up := parsed.match;
    like_looked_up := parsed.rank_by;
    IF cardinality(facets) > 0 THEN
        looked_up := looked_up && array_to_string(facets, ' & ')::tsquery;
        like_looked_up := like_looked_up && array_to_string(facets, ' & ')::tsquery;
    END IF;
    LOOP
        ids := public.search_newest(looked_up, like_looked_up, parsed.pairs, search."from", search."to", ceiling, round_size,
                                    parsed.has_wide_prefix);
        EXIT WHEN cardinality(ids) = 0;
        -- what arrives while somebody reads on does not move the round; nor does a cursor tell others' ids
        ceiling := ids[1] + 1;
        RETURN QUERY
            SELECT h.rank, h.segment_id, r.id, r.name, b.name, r.programme, r.broadcast_on,
                   round(s.start_sample / 16000.0, 3), round(s.end_sample / 16000.0, 3),
                   archive.timecode(s.start_sample / 16000.0 + coalesce(r.timecode_offset_ms, 0) / 1000.0),
                   public.search_snippet(normalize(s.text, NFC), parsed.forms, parsed.stems, parsed.prefixes, parsed.phrases),
                   m.name, m.is_demo, ceiling || '~' || h.rank || '~' || h.segment_id
            FROM (SELECT ts_rank(i.doc, parsed.rank_by, 1) AS rank, i.segment_id
                  FROM public.search_segments i WHERE i.segment_id = ANY (ids)) h
            JOIN public.segments s ON s.id = h.segment_id
            JOIN public.transcripts t ON t.id = s.transcript_id AND t.is_current
            JOIN public.recordings r ON r.id = s.recording_id
            JOIN public.broadcasters b ON b.id = s.broadcaster_id
            LEFT JOIN public.models m ON m.id = t.model_id
            WHERE after_rank IS NULL OR (h.rank, h.segment_id) < (after_rank, after_id)
            ORDER BY h.rank DESC, h.segment_id DESC
            LIMIT wanted;
        GET DIAGNOSTICS returned = ROW_COUNT;
        wanted := wanted - returned;
        EXIT WHEN wanted = 0 OR cardinality(ids) < round_size;
        -- the next older matches are ranked among themselves, behind these
        ceiling := ids[round_size];
        after_rank := NULL;
    END LOOP;
END $$;

CREATE FUNCTION archive.mentions(
    query text, broadcaster text DEFAULT NULL, programme text DEFAULT NULL, "from" date DEFAULT NULL,
    "to" date DEFAULT NULL, model text DEFAULT NULL)
    RETURNS SETOF archive.mention
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    parsed record;
    facets text[] := public.search_facets(
        mentions.broadcaster, mentions.programme, mentions."from", mentions."to", mentions.model);
    looked_up tsquery;
    wanted_pairs integer[];
BEGIN
    SELECT * INTO parsed FROM public.search_parse(mentions.query);
    IF facets IS NULL THEN
        RETURN;
    END IF;
    looked_up := parsed.match;
    wanted_pairs := nullif(parsed.pairs, '{}');
    IF cardinality(facets) > 0 THEN
        looked_up := looked_up && array_to_string(facets, ' & ')::tsquery;
    END IF;
    RETURN QUERY
        SELECT i.segment_id, r.id, b.name, r.programme, r.programme_kind, r.broadcast_on, i.said_on
        FROM public.search_segments i
        JOIN public.recordings r ON r.id = i.recording_id
        JOIN public.broadcasters b ON b.id = i.broadcaster_id
        WHERE i.doc @@ looked_up AND (wanted_pairs IS NULL OR i.pairs @> wanted_pairs)
          AND (mentions."from" IS NULL OR i.said_on >= mentions."from")
          AND (mentions."to" IS NULL OR i.said_on <= mentions."to");
END $$;

CREATE FUNCTION archive.search_count(
    query text, broadcaster text DEFAULT NULL, programme text DEFAULT NULL, "from" date DEFAULT NULL,
    "to" date DEFAULT NULL, model text DEFAULT NULL, cap integer DEFAULT 10000)
    RETURNS TABLE (n bigint, is_exact boolean)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER ROWS 1
    SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
DECLARE
    parsed record;
    facets text[];
    looked_up tsquery;
    like_looked_up tsquery;
    found integer := 0;
BEGIN
    IF search_count.cap IS NULL OR search_count.cap NOT BETWEEN 1 AND 100000 THEN
        RAISE EXCEPTION 'cap is the highest count given, 1 to 100,000: for all matches count archive.mentions(...)'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO parsed FROM public.search_parse(search_count.query);
    facets := public.search_facets(search_count.broadcaster, search_count.programme, search_count."from",
                                   search_count."to", search_count.model);
    IF facets IS NOT NULL THEN
        looked_up := parsed.match;
        like_looked_up := parsed.rank_by;
        IF cardinality(facets) > 0 THEN
            looked_up := looked_up && array_to_string(facets, ' & ')::tsquery;
            like_looked_up := like_looked_up && array_to_string(facets, ' & ')::tsquery;
        END IF;
        found := cardinality(public.search_newest(looked_up, like_looked_up, parsed.pairs, search_count."from",
                                                  search_count."to", 9223372036854775807, search_count.cap + 1, parsed.has_wide_prefix));
    END IF;
    RETURN QUERY SELECT least(found, search_count.cap)::bigint, found <= search_count.cap;
END $$;

REVOKE ALL ON FUNCTION archive.search, archive.mentions, archive.search_count, public.search_parse, public.search_facets,
    public.search_newest, public.search_index FROM PUBLIC;
