-- What callers ask: pages of hits, all matches, how many. It stands on search_windows.sql.

CREATE INDEX ix_search_lexicon_stems ON public.search_lexicon USING gin (stems);

-- Texts with the words that match between <mark> and </mark>: up to 40 words of each. All at once, as most of what one
-- text takes is the same for all.
CREATE FUNCTION public.search_snippets(
    segment_ids bigint[], contents text[], forms text[], stems text[], prefixes text[], phrases text[])
    RETURNS TABLE (segment_id bigint, snippet text)
    LANGUAGE plpgsql STABLE ROWS 20
    SET search_path = pg_catalog, pg_temp SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    most_words CONSTANT integer := 40;  -- of one snippet
    before_hit CONSTANT integer := 10;
    known_forms CONSTANT text[] := ARRAY(
        SELECT l.form FROM public.search_lexicon l WHERE l.stems && search_snippets.stems);
BEGIN
    RETURN QUERY
    WITH tokens AS MATERIALIZED (
        SELECT c.n, t.place, t.gap, t.word, left(public.search_fold(t.word), 64) AS folded,
               left(lower(t.word COLLATE "pg_c_utf8"), 64) COLLATE "C" AS form
        FROM unnest(contents) WITH ORDINALITY AS c (content, n)
        CROSS JOIN LATERAL public.search_tokens(c.content) t
    ), hit_forms AS MATERIALIZED (
        -- each form once: the same words come again and again
        SELECT f.form
        FROM (SELECT DISTINCT t.form, t.folded FROM tokens t WHERE t.word <> '') f
        WHERE f.form = ANY (known_forms) OR f.folded = ANY (forms)
           OR EXISTS (SELECT FROM unnest(prefixes) x WHERE f.folded ^@ x)
           -- a stem begins as its word does: most words need not be stemmed
           OR (EXISTS (SELECT FROM unnest(search_snippets.stems) x WHERE left(x, 2) = left(f.folded, 2))
               AND NOT EXISTS (SELECT FROM public.search_lexicon l WHERE l.form = f.form)
               AND public.search_unknown_stems(f.form) && search_snippets.stems)
    ), words AS (
        SELECT t.n, array_agg(t.folded ORDER BY t.place) AS folded, array_agg(t.place ORDER BY t.place) AS places
        FROM tokens t WHERE t.word <> '' AND cardinality(search_snippets.phrases) > 0
        GROUP BY t.n
    ), in_phrases AS MATERIALIZED (
        SELECT w.n, w.places[s.start] AS first, w.places[s.start + cardinality(p.words) - 1] AS last
        FROM words w
        CROSS JOIN (SELECT string_to_array(x, ' ') FROM unnest(search_snippets.phrases) x) AS p (words)
        CROSS JOIN LATERAL generate_series(1, cardinality(w.folded) - cardinality(p.words) + 1) AS s (start)
        WHERE w.folded[s.start] = p.words[1] AND w.folded[s.start : s.start + cardinality(p.words) - 1] = p.words
    ), marked AS MATERIALIZED (
        SELECT t.n, t.place, t.gap, t.word,
               t.form IN (SELECT h.form FROM hit_forms h)
               OR EXISTS (SELECT FROM in_phrases h WHERE h.n = t.n AND t.place BETWEEN h.first AND h.last) AS is_hit
        FROM tokens t
    ), shown AS (
        -- the first hit is not far from the beginning
        SELECT m.n, CASE WHEN max(m.place) <= most_words THEN 1
                         ELSE greatest(1, least(coalesce(min(m.place) FILTER (WHERE m.is_hit), 1) - before_hit,
                                                max(m.place) - most_words + 1)) END AS first,
               max(m.place) AS last
        FROM marked m
        GROUP BY m.n
    )
    SELECT segment_ids[s.n],
           CASE WHEN s.first > 1 THEN '…' ELSE '' END
           || string_agg(CASE WHEN m.place = s.first AND s.first > 1 THEN ltrim(m.gap) ELSE m.gap END
                         || CASE WHEN m.is_hit THEN '<mark>' || m.word || '</mark>' ELSE m.word END, '' ORDER BY m.place)
           || CASE WHEN s.first + most_words <= s.last THEN '…' ELSE '' END
    FROM shown s JOIN marked m ON m.n = s.n AND m.place BETWEEN s.first AND s.first + most_words - 1
    GROUP BY s.n, s.first, s.last;
END $$;

-- One page of hits, and of how many matches the first were ranked: up to round_size, more where there are more.
CREATE FUNCTION public.search_page(
    query text, broadcaster text, programme text, "from" date, "to" date, model text, "limit" integer, after text,
    OUT hit archive.search_hit, OUT n_found integer)
    RETURNS SETOF record
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER ROWS 20
    SET search_path = pg_catalog, pg_temp SET jit = off SET max_parallel_workers_per_gather = 0
    SET extra_float_digits = 1
    SET plan_cache_mode = force_generic_plan  -- else each call would be planned, which takes longer than to answer it
AS $$
#variable_conflict use_column
DECLARE
    round_size CONSTANT integer := 250;
    prepared public.search_query;
    parts text[];
    ceiling bigint := 9223372036854775807;
    after_rank real;
    after_id bigint;
    wanted integer := search_page."limit";
    returned integer;
    ids bigint[];
BEGIN
    IF wanted IS NULL OR wanted NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION 'a search gives 1 to 100 rows at a time, not %: read on with after => the last row''s cursor',
            coalesce(wanted::text, 'NULL') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF search_page.after IS NOT NULL THEN
        parts := regexp_match(search_page.after, '^(\d{1,18})~([0-9.e+-]{1,20})~(\d{1,18})$');
        IF parts IS NULL OR NOT pg_input_is_valid(parts[2], 'real') THEN
            RAISE EXCEPTION 'after does not hold a cursor that a search gave: pass the last row''s cursor as it is'
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        ceiling := parts[1];
        after_rank := parts[2];
        after_id := parts[3];
    END IF;
    prepared := public.search_prepare(search_page.query, search_page.broadcaster, search_page.programme,
                                      search_page."from", search_page."to", search_page.model);
    LOOP
        EXIT WHEN prepared.rank_by IS NULL;
        -- one more than is ranked tells whether there are more
        ids := public.search_newest(prepared, ceiling, round_size + 1);
        EXIT WHEN cardinality(ids) = 0;
        -- what arrives while somebody reads on does not move the round; nor does a cursor tell others' ids
        ceiling := ids[1] + 1;
        RETURN QUERY
            WITH hits AS MATERIALIZED (
                SELECT h.rank, h.segment_id, normalize(s.text, NFC) AS text, s.start_sample, s.end_sample, s.recording_id,
                       s.broadcaster_id, t.model_id
                FROM (SELECT x.rank, x.segment_id
                      FROM (SELECT ts_rank(i.doc, prepared.rank_by, 1) AS rank, i.segment_id
                            FROM public.search_segments i WHERE i.segment_id = ANY (ids[: round_size])) x
                      WHERE after_rank IS NULL OR (x.rank, x.segment_id) < (after_rank, after_id)
                      ORDER BY x.rank DESC, x.segment_id DESC) h
                JOIN public.segments s ON s.id = h.segment_id
                JOIN public.transcripts t ON t.id = s.transcript_id AND t.is_current
                ORDER BY h.rank DESC, h.segment_id DESC
                LIMIT wanted)
            SELECT ROW(h.rank, h.segment_id, r.id, r.name, b.name, r.programme, r.broadcast_on,
                       round(h.start_sample / 16000.0, 3), round(h.end_sample / 16000.0, 3),
                       archive.timecode(h.start_sample / 16000.0 + coalesce(r.timecode_offset_ms, 0) / 1000.0),
                       x.snippet, m.name, m.is_demo, ceiling || '~' || h.rank || '~' || h.segment_id)::archive.search_hit,
                   cardinality(ids)
            FROM hits h
            JOIN public.recordings r ON r.id = h.recording_id
            JOIN public.broadcasters b ON b.id = h.broadcaster_id
            LEFT JOIN public.models m ON m.id = h.model_id
            LEFT JOIN public.search_snippets(
                ARRAY(SELECT y.segment_id FROM hits y), ARRAY(SELECT y.text FROM hits y), prepared.forms, prepared.stems,
                prepared.prefixes, prepared.said_phrases) x ON x.segment_id = h.segment_id
            ORDER BY h.rank DESC, h.segment_id DESC;
        GET DIAGNOSTICS returned = ROW_COUNT;
        wanted := wanted - returned;
        EXIT WHEN wanted = 0 OR cardinality(ids) <= round_size;
        -- the next older matches are ranked among themselves, behind these
        ceiling := ids[round_size];
        after_rank := NULL;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION archive.search(
    query text, broadcaster text DEFAULT NULL, programme text DEFAULT NULL, "from" date DEFAULT NULL,
    "to" date DEFAULT NULL, model text DEFAULT NULL, "limit" integer DEFAULT 20, after text DEFAULT NULL)
    RETURNS SETOF archive.search_hit
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER ROWS 20
    SET search_path = pg_catalog, pg_temp SET jit = off SET max_parallel_workers_per_gather = 0
    SET extra_float_digits = 1 SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN QUERY SELECT (p.hit).* FROM public.search_page(
        search.query, search.broadcaster, search.programme, search."from", search."to", search.model, search."limit",
        search.after) p;
END $$;

CREATE OR REPLACE FUNCTION archive.mentions(
    query text, broadcaster text DEFAULT NULL, programme text DEFAULT NULL, "from" date DEFAULT NULL,
    "to" date DEFAULT NULL, model text DEFAULT NULL)
    RETURNS SETOF archive.mention
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    prepared CONSTANT public.search_query := public.search_prepare(
        mentions.query, mentions.broadcaster, mentions.programme, mentions."from", mentions."to", mentions.model);
    wanted_pairs CONSTANT integer[] := nullif(prepared.pairs, '{}');
    looked_up CONSTANT tsquery :=
        nullif('(' || array_to_string(prepared.words || prepared.filters, ') & (') || ')', '()')::tsquery;
BEGIN
    RETURN QUERY
        SELECT i.segment_id, r.id, b.name, r.programme, r.programme_kind, r.broadcast_on, i.said_on
        FROM public.search_segments i
        JOIN public.recordings r ON r.id = i.recording_id
        JOIN public.broadcasters b ON b.id = i.broadcaster_id
        WHERE prepared.rank_by IS NOT NULL
          AND (looked_up IS NULL OR i.doc @@ looked_up)
          AND (prepared.phrases IS NULL OR i.doc @@ prepared.phrases)
          AND (prepared.wide IS NULL OR i.doc @@ prepared.wide)
          AND (prepared.beginnings IS NULL OR i.doc @@ prepared.beginnings)
          AND (wanted_pairs IS NULL OR i.pairs @> wanted_pairs)
          AND (mentions."from" IS NULL OR i.said_on >= mentions."from")
          AND (mentions."to" IS NULL OR i.said_on <= mentions."to");
END $$;

CREATE OR REPLACE FUNCTION archive.search_count(
    query text, broadcaster text DEFAULT NULL, programme text DEFAULT NULL, "from" date DEFAULT NULL,
    "to" date DEFAULT NULL, model text DEFAULT NULL, cap integer DEFAULT 10000)
    RETURNS TABLE (n bigint, is_exact boolean)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER ROWS 1
    SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
DECLARE
    prepared public.search_query;
    found integer := 0;
BEGIN
    IF search_count.cap IS NULL OR search_count.cap NOT BETWEEN 1 AND 100000 THEN
        RAISE EXCEPTION 'cap is the highest count given, 1 to 100,000: for all matches count archive.mentions(...)'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    prepared := public.search_prepare(search_count.query, search_count.broadcaster, search_count.programme,
                                      search_count."from", search_count."to", search_count.model);
    IF prepared.rank_by IS NOT NULL THEN
        found := cardinality(public.search_newest(prepared, 9223372036854775807, search_count.cap + 1));
    END IF;
    RETURN QUERY SELECT least(found, search_count.cap)::bigint, found <= search_count.cap;
END $$;

REVOKE ALL ON FUNCTION public.search_parse, public.search_prepare, public.search_window, public.search_estimate,
    public.search_newest_of_days, public.search_newest, public.search_newest_wide, public.search_snippets, public.search_page FROM PUBLIC;

COMMENT ON FUNCTION archive.search IS 'Segments that match, 1 to 100 at a time: the newest 250, best first, then the next older 250, and so on; pass the last row''s cursor as after to read on. query: words in any inflected form, "a phrase" as written, -without, begin*; accents and case do not matter. broadcaster, programme, model: by name; from and to: days of broadcast (of arrival where not known), both included. Row: rank, segment, recording, times in seconds and as timecode, and a snippet of the text with the words that matched between <mark> and </mark>.';
