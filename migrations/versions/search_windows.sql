-- How matches are found, in the place of what search_functions.sql says of it. docs/decisions/0017 has the reasons.

CREATE TYPE public.search_query AS (
    words tsquery,          -- words, single ones in quotes, what must not be said; NULL: none, as below
    phrases tsquery,        -- checked on rows: the index knows pairs of neighbours only
    pairs integer[],        -- neighbours in phrases; empty: none
    filters tsquery[],      -- up to four: days, model, programme, the caller's rights or a broadcaster; empty: none
    checked tsquery,        -- a filter that is checked on rows instead
    beginnings tsquery,     -- beginnings as the words that begin so
    like_beginnings tsquery,  -- the same, as the index's own search for beginnings
    wide tsquery,           -- beginnings of more words than one look-up takes: checked on rows
    wide_words tsquery,     -- those words, where there is one such beginning and they are not too many
    n_wide_words integer,
    rank_by tsquery,
    forms text[], stems text[], prefixes text[], said_phrases text[],  -- what is marked
    from_on date, to_on date);
COMMENT ON TYPE public.search_query IS
    'A query as what to look up, what to rank by, and what to mark in a text. A row matches where each part does.';

-- A query as people write it: words, "a phrase", -without, begin*.
CREATE FUNCTION public.search_parse(query text) RETURNS public.search_query
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most_words CONSTANT integer := 30;  -- a beginning is looked up as the words that begin so, up to this many
    most_wide_words CONSTANT integer := 2000;
    last_sign CONSTANT text := chr(1114111);
    parsed public.search_query;
    item record;
    tokens text[];
    words text[];  -- the tokens, folded
    own_stems text[];
    begun text[];
    whole text[];  -- of one item: words and phrases
    begin_so text[];
    wide_begin_so text[];
    wide_words text[];
    one_rank text[];
    all_words text[] := '{}';
    all_phrases text[] := '{}';
    all_beginnings text[] := '{}';
    all_like_beginnings text[] := '{}';
    all_wide text[] := '{}';
    all_rank text[] := '{}';
    n_words integer := 0;
BEGIN
    parsed.pairs := '{}'; parsed.forms := '{}'; parsed.stems := '{}'; parsed.prefixes := '{}'; parsed.said_phrases := '{}';
    parsed.filters := '{}';
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
        whole := '{}'; begin_so := '{}'; wide_begin_so := '{}'; one_rank := '{}';
        IF item.quoted THEN
            whole := ARRAY[array_to_string(words, ' <-> ')];
            one_rank := whole;
            IF NOT item.negated THEN
                parsed.said_phrases := parsed.said_phrases || array_to_string(words, ' ');
                FOR n IN 2 .. cardinality(words) LOOP
                    parsed.pairs := parsed.pairs || public.search_pair(words[n - 1], words[n]);
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
                             WHERE w.word >= words[n] AND w.word < words[n] || last_sign LIMIT most_wide_words + 1)
                            UNION
                            (SELECT w.word FROM public.search_new_words w
                             WHERE w.word >= words[n] AND w.word < words[n] || last_sign LIMIT most_wide_words + 1)) x);
                    one_rank := one_rank || (words[n] || ':*');
                    IF cardinality(begun) > most_words THEN
                        wide_begin_so := wide_begin_so || (words[n] || ':*');
                        wide_words := begun;
                    ELSE
                        begin_so := begin_so || ('(' || array_to_string(begun || words[n], ' | ') || ')');
                    END IF;
                    IF NOT item.negated THEN
                        parsed.prefixes := parsed.prefixes || words[n];
                    END IF;
                ELSE
                    own_stems := public.search_stems(tokens[n]);
                    whole := whole || ('(' || words[n] || ' | ~' || array_to_string(own_stems, ' | ~') || ')');
                    one_rank := one_rank || whole[cardinality(whole)];
                    IF NOT item.negated THEN
                        parsed.forms := parsed.forms || words[n];
                        parsed.stems := parsed.stems || own_stems;
                    END IF;
                END IF;
            END LOOP;
        END IF;
        IF NOT item.negated AND item.quoted AND cardinality(words) > 1 THEN
            all_phrases := all_phrases || whole;
            all_rank := all_rank || one_rank;
        ELSIF NOT item.negated THEN
            all_words := all_words || whole;
            all_beginnings := all_beginnings || begin_so;
            IF cardinality(begin_so) > 0 THEN
                all_like_beginnings := all_like_beginnings || (words[cardinality(words)] || ':*');
            END IF;
            all_wide := all_wide || wide_begin_so;
            all_rank := all_rank || ('(' || array_to_string(one_rank, ' & ') || ')');
        ELSIF cardinality(wide_begin_so) = 0 THEN
            all_words := all_words || ('!(' || array_to_string(whole || begin_so, ' & ') || ')');
        ELSE
            all_wide := all_wide || ('!(' || array_to_string(whole || wide_begin_so, ' & ') || ')');
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
    parsed.phrases := nullif(array_to_string(all_phrases, ' & '), '')::tsquery;
    parsed.words := nullif(array_to_string(all_words, ' & '), '')::tsquery;
    parsed.beginnings := nullif(array_to_string(all_beginnings, ' & '), '')::tsquery;
    parsed.like_beginnings := nullif(array_to_string(all_like_beginnings, ' & '), '')::tsquery;
    parsed.wide := nullif(array_to_string(all_wide, ' & '), '')::tsquery;
    IF cardinality(all_wide) = 1 AND left(all_wide[1], 1) <> '!' AND cardinality(wide_words) <= most_wide_words THEN
        parsed.wide_words := array_to_string(wide_words, ' | ')::tsquery;
        parsed.n_wide_words := cardinality(wide_words);
    END IF;
    parsed.rank_by := array_to_string(all_rank, ' & ')::tsquery;
    RETURN parsed;
END $$;

CREATE FUNCTION public.search_prepare(
    query text, broadcaster text, programme text, from_on date, to_on date, model text) RETURNS public.search_query
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parsed public.search_query := public.search_parse(query);
    facets CONSTANT text[] := public.search_facets(broadcaster, programme, from_on, to_on, model);
BEGIN
    IF facets IS NULL THEN
        RETURN NULL;
    END IF;
    -- days first: where no row of a window is of those days, the index need not look at anything else
    parsed.filters := ARRAY(SELECT f.facet::tsquery FROM unnest(facets) WITH ORDINALITY AS f (facet, place)
                            ORDER BY f.place DESC);
    parsed.from_on := from_on;
    parsed.to_on := to_on;
    RETURN parsed;
END $$;
COMMENT ON FUNCTION public.search_prepare(text, text, text, date, date, text) IS
    'A query with its filters and the caller''s rights; NULL: nothing can match.';

-- Ids below `below` of rows in a window that match but for wide beginnings; no more than `most` (NULL: all). Each part of
-- the query stands alone: the index then goes to and fro between them, from each one's next row to that of the others.
-- In one tsquery it would look up each row of the rarest word, or of a filter that the window does not meet, in all else.
-- A part that is missing is filled by another, which the index reads only once. `segment_id + 0` keeps the planner
-- from reading the primary key for half of the table beside it.
CREATE FUNCTION public.search_window(query public.search_query, "window" tsquery, below bigint, most integer)
    RETURNS bigint[] LANGUAGE plpgsql STABLE
AS $$
DECLARE
    n_filters CONSTANT integer := cardinality(query.filters);
    begins CONSTANT boolean := query.beginnings IS NOT NULL;
    filled CONSTANT tsquery := coalesce("window", query.filters[1], query.beginnings, query.words);
    words CONSTANT tsquery := coalesce(query.words, filled);
    beginnings CONSTANT tsquery := coalesce(query.beginnings, filled);
    filter_1 CONSTANT tsquery := coalesce(query.filters[1], filled);
    filter_2 CONSTANT tsquery := coalesce(query.filters[2], filled);
    filter_3 CONSTANT tsquery := coalesce(query.filters[3], filled);
    filter_4 CONSTANT tsquery := coalesce(query.filters[4], filled);
BEGIN
    -- few parts are the most frequent, and a part that is filled still costs a little for each row
    IF cardinality(query.pairs) > 0 THEN
        IF filled IS NULL THEN
            RETURN ARRAY(
                SELECT i.segment_id FROM public.search_segments i
                WHERE i.pairs @> (query.pairs) AND (i.doc @@ query.phrases) IS TRUE
                  AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
                  AND (query.from_on IS NULL OR i.said_on >= query.from_on)
                  AND (query.to_on IS NULL OR i.said_on <= query.to_on)
                LIMIT most);
        ELSIF n_filters < 2 AND NOT begins THEN
            RETURN ARRAY(
                SELECT i.segment_id FROM public.search_segments i
                WHERE i.pairs @> (query.pairs) AND i.doc @@ words AND i.doc @@ filter_1 AND i.doc @@ filled
                  AND (i.doc @@ query.phrases) IS TRUE
                  AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
                  AND (query.from_on IS NULL OR i.said_on >= query.from_on)
                  AND (query.to_on IS NULL OR i.said_on <= query.to_on)
                LIMIT most);
        END IF;
        RETURN ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.pairs @> (query.pairs) AND i.doc @@ words AND i.doc @@ beginnings AND i.doc @@ filter_1
              AND i.doc @@ filter_2 AND i.doc @@ filter_3 AND i.doc @@ filter_4 AND i.doc @@ filled
              AND (i.doc @@ query.phrases) IS TRUE
              AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            LIMIT most);
    ELSIF n_filters = 0 AND NOT begins THEN
        RETURN ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.doc @@ words AND i.doc @@ filled
              AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            LIMIT most);
    ELSIF n_filters < 2 THEN
        RETURN ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.doc @@ words AND i.doc @@ beginnings AND i.doc @@ filter_1 AND i.doc @@ filled
              AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            LIMIT most);
    ELSIF n_filters = 2 THEN
        RETURN ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.doc @@ words AND i.doc @@ beginnings AND i.doc @@ filter_1 AND i.doc @@ filter_2 AND i.doc @@ filled
              AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            LIMIT most);
    END IF;
    RETURN ARRAY(
        SELECT i.segment_id FROM public.search_segments i
        WHERE i.doc @@ words AND i.doc @@ beginnings AND i.doc @@ filter_1 AND i.doc @@ filter_2 AND i.doc @@ filter_3
          AND i.doc @@ filter_4 AND i.doc @@ filled
          AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
          AND (query.from_on IS NULL OR i.said_on >= query.from_on)
          AND (query.to_on IS NULL OR i.said_on <= query.to_on)
        LIMIT most);
END $$;

CREATE FUNCTION public.search_estimate(query public.search_query) RETURNS double precision
    LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    parts CONSTANT text[] := array_remove(
        ARRAY[query.words, query.phrases, query.like_beginnings] || query.filters, NULL)::text[];
    plan json;
    estimate double precision;
BEGIN
    IF cardinality(parts) = 0 THEN
        RETURN (SELECT c.reltuples FROM pg_class c WHERE c.oid = 'public.search_segments'::regclass);
    END IF;
    EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM public.search_segments WHERE doc @@ %L::tsquery',
                   '(' || array_to_string(parts, ') & (') || ')') INTO plan;
    estimate := plan -> 0 -> 'Plan' ->> 'Plan Rows';
    IF cardinality(query.pairs) > 0 THEN
        -- words of a phrase may be common, and follow each other seldom
        EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM public.search_segments WHERE pairs @> %L::integer[]', query.pairs)
            INTO plan;
        estimate := least(estimate, (plan -> 0 -> 'Plan' ->> 'Plan Rows')::double precision);
    END IF;
    RETURN estimate;
END $$;
COMMENT ON FUNCTION public.search_estimate(public.search_query) IS
    'How many rows match but for wide beginnings, by the planner''s statistics.';

-- Between which ids all matches lie; NULL: there are none. Of up to ten years of days, those that were said then.
CREATE FUNCTION public.search_range(query public.search_query, OUT oldest bigint, OUT newest bigint)
    LANGUAGE plpgsql STABLE
AS $$
DECLARE
    most_days CONSTANT integer := 3653;
    first_on date;
    last_on date;
BEGIN
    IF query.from_on IS NOT NULL OR query.to_on IS NOT NULL THEN
        SELECT greatest(min(i.said_on), query.from_on), least(max(i.said_on), query.to_on) INTO first_on, last_on
        FROM public.search_segments i;
    END IF;
    IF last_on - first_on < most_days THEN
        SELECT min(of_day.oldest), max(of_day.newest) INTO search_range.oldest, search_range.newest
        FROM generate_series(0, last_on - first_on) AS d (n)
        CROSS JOIN LATERAL (SELECT min(i.segment_id) AS oldest, max(i.segment_id) AS newest
                            FROM public.search_segments i WHERE i.said_on = first_on + d.n) AS of_day;
    ELSE
        SELECT min(i.segment_id), max(i.segment_id) INTO search_range.oldest, search_range.newest
        FROM public.search_segments i;
    END IF;
END $$;

-- The newest n matches below a segment id, newest first. A word that millions of segments hold must not cost millions
-- of rows, and a word that only old segments hold must not cost a walk over all newer ones. So windows of ids are part of
-- the query (/w 4,096 ids, /v 32,768, /u 262,144, /t 2,097,152), newest first, wider while little is found, narrower
-- again where much is. Where days are asked for and nothing is found, the walk goes on at the newest id of those days.
-- What the planner expects to match seldom is read at once; but for phrases, of which it expects too little by orders of
-- magnitude, as their words are said together.
CREATE FUNCTION public.search_newest(query public.search_query, below bigint, n integer)
    RETURNS bigint[] LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp SET jit = off SET max_parallel_workers_per_gather = 0
    SET plan_cache_mode = force_generic_plan  -- the windows' plan is always the index: planned once, not per window
AS $$
DECLARE
    few CONSTANT integer := 2000;  -- read at once
    fewest CONSTANT integer := 500;  -- matches of one window are never too many
    shifts CONSTANT integer[] := '{12,15,18,21}';
    names CONSTANT text[] := '{/w,/v,/u,/t}';
    level integer := 1;
    widest integer := 4;
    n_empty integer := 0;
    n_windows integer := 0;
    n_filters integer;
    is_frequent boolean;
    looked_up public.search_query := query;
    start bigint;
    estimate CONSTANT double precision := CASE WHEN query.wide IS NULL THEN public.search_estimate(query) END;
    ids bigint[];
    found bigint[] := '{}';
    wanted integer;
    most integer;
    lowest bigint;
    place bigint;
    span bigint;
BEGIN
    IF query.wide IS NOT NULL THEN
        RETURN public.search_newest_wide(query, below, n);
    END IF;
    IF estimate > 130000 THEN
        widest := 3;  -- the index gathers all of a window's matches, however few are wanted
    END IF;
    IF estimate <= few AND cardinality(query.pairs) = 0 THEN
        ids := public.search_window(query, NULL, below, few + 1);
        IF cardinality(ids) <= few THEN
            RETURN ARRAY(SELECT f.id FROM unnest(ids) AS f (id) ORDER BY f.id DESC LIMIT n);
        END IF;
    END IF;
    SELECT min(i.segment_id), least(max(i.segment_id) + 1, below) INTO lowest, place FROM public.search_segments i;
    n_filters := cardinality(query.filters);
    IF n_filters > 0 AND query.from_on IS NULL AND query.to_on IS NULL AND (estimate < 130000 OR cardinality(query.pairs) > 0)
            AND coalesce(query.words, query.beginnings, query.phrases) IS NOT NULL THEN
        -- what is said seldom lies far apart: to look each row up among those of a broadcaster that has a good part of
        -- the archive takes longer than to read it
        SELECT avg((x.doc @@ query.filters[n_filters])::integer) > 0.3 INTO is_frequent
        FROM (SELECT i.doc FROM public.search_segments i ORDER BY i.segment_id DESC LIMIT 500) x;
        IF is_frequent THEN
            looked_up.checked := query.filters[n_filters];
            looked_up.filters := query.filters[: n_filters - 1];
        END IF;
    END IF;
    start := place;
    WHILE place > lowest AND cardinality(found) < n LOOP
        wanted := n - cardinality(found);
        most := greatest(wanted * 3 / 2, fewest);
        span := (place - 1) >> shifts[level];
        ids := public.search_window(looked_up, (names[level] || span)::tsquery, place, CASE WHEN level > 1 THEN most + 1 END);
        IF level > 1 AND cardinality(ids) > most THEN
            level := level - 1;
            CONTINUE;
        END IF;
        found := found || ids;
        place := span << shifts[level];
        n_empty := CASE WHEN cardinality(ids) = 0 THEN n_empty + 1 ELSE 0 END;
        IF n_empty = 3 AND (query.from_on IS NOT NULL OR query.to_on IS NOT NULL) THEN
            SELECT greatest(r.oldest, lowest), least(r.newest + 1, place) INTO lowest, place
            FROM public.search_range(query) r;
        END IF;
        n_windows := n_windows + 1;
        IF n_windows = 3 AND estimate <= few AND cardinality(found) * (place - lowest) <= few * (start - place) THEN
            -- a phrase that the planner and the newest rows say is rare: all of it at once
            ids := public.search_window(looked_up, NULL, place, few + 1);
            IF cardinality(ids) <= few THEN
                found := found || ids;
                EXIT;
            END IF;
        END IF;
        IF level < widest AND cardinality(ids) * 8 <= most AND place % (1::bigint << shifts[level + 1]) = 0 THEN
            level := level + 1;
        ELSIF level > 1 AND cardinality(ids) > 2 * (wanted - cardinality(ids)) THEN
            level := level - 1;
        END IF;
    END LOOP;
    RETURN ARRAY(SELECT f.id FROM unnest(found) AS f (id) ORDER BY f.id DESC LIMIT n);
END $$;

-- The same for beginnings of many words. Where they are often said, the newest rows that match everything else are
-- read; where they are not, all its words are looked up, in as few windows as that takes.
CREATE FUNCTION public.search_newest_wide(query public.search_query, below bigint, n integer)
    RETURNS bigint[] LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    shifts CONSTANT integer[] := '{12,15,18,21}';
    names CONSTANT text[] := '{/w,/v,/u,/t}';
    reads_all CONSTANT boolean := coalesce(query.words, query.beginnings, query.phrases, query.filters[1]) IS NULL;
    -- microseconds: a row that is read among its neighbours, and one by itself; what a word costs for each row that is
    -- found by all words at once, and for each window
    row_us CONSTANT double precision := 2;
    lone_row_us CONSTANT double precision := 20;
    word_row_us CONSTANT double precision := 0.12;
    word_us CONSTANT double precision := 15;
    few CONSTANT integer := 2000;
    most_gathered CONSTANT integer := 50000;
    words_of_wide public.search_query := query;
    gathered public.search_query := query;
    all_so public.search_query;
    others public.search_query := query;
    ids bigint[];
    found bigint[] := '{}';
    at_once integer := CASE WHEN reads_all THEN 8192 ELSE 2048 END;  -- rows read
    n_read integer := 0;
    to_read double precision;
    wanted integer;
    level integer := 1;
    newest bigint;
    lowest bigint;
    place bigint := below;
    span bigint;
BEGIN
    gathered.wide := NULL;
    gathered.beginnings := coalesce(query.like_beginnings && query.wide, query.wide);
    gathered.like_beginnings := gathered.beginnings;
    others.wide := NULL;
    IF NOT reads_all AND public.search_estimate(gathered) <= few THEN
        -- the index gathers all rows that begin so, which takes a while, but less than to look for so few among many
        all_so := query;
        all_so.words := NULL; all_so.phrases := NULL; all_so.pairs := '{}'; all_so.filters := '{}';
        all_so.like_beginnings := query.wide;
        IF public.search_estimate(all_so) <= most_gathered THEN
            ids := public.search_window(gathered, NULL, below, 2 * few + 1);
            IF cardinality(ids) <= 2 * few THEN
                RETURN ARRAY(SELECT f.id FROM unnest(ids) AS f (id) ORDER BY f.id DESC LIMIT n);
            END IF;
        END IF;
    END IF;
    LOOP
        IF reads_all THEN
            ids := ARRAY(SELECT i.segment_id FROM public.search_segments i
                         WHERE i.segment_id < place ORDER BY i.segment_id DESC LIMIT at_once);
        ELSE
            ids := public.search_newest(others, place, at_once);
        END IF;
        found := found || ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.segment_id = ANY (ids) AND (i.doc @@ query.wide) IS TRUE
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            ORDER BY i.segment_id DESC);
        IF cardinality(ids) < at_once OR cardinality(found) >= n THEN
            RETURN found[: n];
        END IF;
        newest := coalesce(newest, ids[1] + 1);
        place := ids[cardinality(ids)];
        n_read := n_read + cardinality(ids);
        wanted := n - cardinality(found);
        to_read := wanted::double precision * n_read / greatest(cardinality(found), 1);
        EXIT WHEN to_read * CASE WHEN reads_all THEN row_us ELSE lone_row_us END
                  > wanted * lone_row_us + 3 * word_us * query.n_wide_words
                    -- so many rows of those words are looked at for each that matches all else too
                    + wanted * (newest - place)::double precision / n_read * word_row_us * query.n_wide_words;
        at_once := least(greatest(1.2 * to_read, 2048), 32768);
    END LOOP;
    -- so wide that what is still wanted lies in one to eight windows, if it is said as often as so far
    WHILE level < 4 AND cardinality(found) * (1::bigint << shifts[level + 1]) <= 2 * wanted * (newest - place) LOOP
        level := level + 1;
    END LOOP;
    words_of_wide.beginnings := CASE WHEN query.beginnings IS NULL THEN query.wide_words
                                     ELSE query.beginnings && query.wide_words END;
    SELECT coalesce(r.oldest, 0) INTO lowest FROM public.search_range(query) r;
    WHILE place > lowest AND cardinality(found) < n LOOP
        span := (place - 1) >> shifts[level];
        found := found || public.search_window(words_of_wide, (names[level] || span)::tsquery, place, NULL);
        place := span << shifts[level];
    END LOOP;
    RETURN ARRAY(SELECT f.id FROM unnest(found) AS f (id) ORDER BY f.id DESC LIMIT n);
END $$;

-- One page of hits, and of how many matches the first were ranked: up to round_size, more where there are more.
CREATE FUNCTION public.search_page(
    query text, broadcaster text, programme text, "from" date, "to" date, model text, "limit" integer, after text,
    OUT hit archive.search_hit, OUT n_found integer)
    RETURNS SETOF record
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER ROWS 20
    SET search_path = pg_catalog, pg_temp SET jit = off SET max_parallel_workers_per_gather = 0
    SET extra_float_digits = 1
    SET plan_cache_mode = force_generic_plan  -- else each snippet would be planned, which takes longer than making it
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
            SELECT ROW(h.rank, h.segment_id, r.id, r.name, b.name, r.programme, r.broadcast_on,
                       round(s.start_sample / 16000.0, 3), round(s.end_sample / 16000.0, 3),
                       archive.timecode(s.start_sample / 16000.0 + coalesce(r.timecode_offset_ms, 0) / 1000.0),
                       public.search_snippet(normalize(s.text, NFC), prepared.forms, prepared.stems, prepared.prefixes,
                                             prepared.said_phrases),
                       m.name, m.is_demo, ceiling || '~' || h.rank || '~' || h.segment_id)::archive.search_hit,
                   cardinality(ids)
            FROM (SELECT x.rank, x.segment_id
                  FROM (SELECT ts_rank(i.doc, prepared.rank_by, 1) AS rank, i.segment_id
                        FROM public.search_segments i WHERE i.segment_id = ANY (ids[: round_size])) x
                  WHERE after_rank IS NULL OR (x.rank, x.segment_id) < (after_rank, after_id)
                  ORDER BY x.rank DESC, x.segment_id DESC) h
            JOIN public.segments s ON s.id = h.segment_id
            JOIN public.transcripts t ON t.id = s.transcript_id AND t.is_current
            JOIN public.recordings r ON r.id = s.recording_id
            JOIN public.broadcasters b ON b.id = s.broadcaster_id
            LEFT JOIN public.models m ON m.id = t.model_id
            ORDER BY h.rank DESC, h.segment_id DESC
            LIMIT wanted;
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
    filters CONSTANT tsquery := nullif('(' || array_to_string(prepared.filters, ') & (') || ')', '()')::tsquery;
BEGIN
    RETURN QUERY
        SELECT i.segment_id, r.id, b.name, r.programme, r.programme_kind, r.broadcast_on, i.said_on
        FROM public.search_segments i
        JOIN public.recordings r ON r.id = i.recording_id
        JOIN public.broadcasters b ON b.id = i.broadcaster_id
        WHERE prepared.rank_by IS NOT NULL
          AND (prepared.words IS NULL OR i.doc @@ prepared.words)
          AND (filters IS NULL OR i.doc @@ filters)
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
    public.search_range, public.search_newest, public.search_newest_wide, public.search_page FROM PUBLIC;

COMMENT ON FUNCTION archive.search IS 'Segments that match, 1 to 100 at a time: the newest 250, best first, then the next older 250, and so on; pass the last row''s cursor as after to read on. query: words in any inflected form, "a phrase" as written, -without, begin*; accents and case do not matter. broadcaster, programme, model: by name; from and to: days of broadcast (of arrival where not known), both included. Row: rank, segment, recording, times in seconds and as timecode, and a snippet of the text with the words that matched between <mark> and </mark>.';
