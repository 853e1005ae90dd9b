-- How matches are found, in the place of what search_functions.sql says of it. docs/decisions/0017 has the reasons.

CREATE TYPE public.search_query AS (
    words tsquery[],        -- words, single ones in quotes, what must not be said; empty: none
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
    parsed.words := '{}'; parsed.pairs := '{}'; parsed.forms := '{}'; parsed.stems := '{}'; parsed.prefixes := '{}'; parsed.said_phrases := '{}';
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
    parsed.words := all_words::tsquery[];
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

-- Ids below `below` of rows in a window (NULL: in all) that match but for wide beginnings; no more than `most` (NULL: all).
-- Each part of the query is a condition of its own: the index then goes to and fro between them, from each one's next row
-- to that of the others. In one tsquery it would look up each row of the rarest word, or of a filter that the window does
-- not meet, in all else. There is a statement for each number of parts: even to repeat one costs a little for each row.
-- `segment_id + 0` keeps the planner from reading the primary key for half of the table beside it.
CREATE FUNCTION public.search_window(query public.search_query, "window" tsquery, below bigint, most integer)
    RETURNS bigint[] LANGUAGE plpgsql STABLE
AS $$
DECLARE
    most_parts CONSTANT integer := 6;
    n_pairs CONSTANT integer := cardinality(query.pairs);
    parts tsquery[] := array_remove(query.words || query.beginnings || query.filters || "window", NULL);
    n_parts integer := cardinality(parts);
    part_1 tsquery; part_2 tsquery; part_3 tsquery; part_4 tsquery; part_5 tsquery; part_6 tsquery;
BEGIN
    WHILE n_parts > most_parts LOOP
        parts := (parts[1] && parts[2]) || parts[3:];
        n_parts := n_parts - 1;
    END LOOP;
    part_1 := parts[1];
    part_2 := coalesce(parts[2], part_1);
    part_3 := coalesce(parts[3], part_2);
    part_4 := coalesce(parts[4], part_3);
    part_5 := coalesce(parts[5], part_4);
    part_6 := coalesce(parts[6], part_5);
    IF n_pairs = 0 AND n_parts <= 1 THEN
        RETURN ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.doc @@ part_1
              AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            LIMIT most);
    ELSIF n_pairs = 0 AND n_parts <= 2 THEN
        RETURN ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.doc @@ part_1 AND i.doc @@ part_2
              AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            LIMIT most);
    ELSIF n_pairs = 0 AND n_parts <= 3 THEN
        RETURN ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.doc @@ part_1 AND i.doc @@ part_2 AND i.doc @@ part_3
              AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            LIMIT most);
    ELSIF n_pairs = 0 AND n_parts <= 4 THEN
        RETURN ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.doc @@ part_1 AND i.doc @@ part_2 AND i.doc @@ part_3 AND i.doc @@ part_4
              AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            LIMIT most);
    ELSIF n_pairs = 0 AND n_parts <= 6 THEN
        RETURN ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.doc @@ part_1 AND i.doc @@ part_2 AND i.doc @@ part_3 AND i.doc @@ part_4 AND i.doc @@ part_5
              AND i.doc @@ part_6
              AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            LIMIT most);
    ELSIF n_parts = 0 THEN
        RETURN ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.pairs @> (query.pairs) AND (i.doc @@ query.phrases) IS TRUE
              AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            LIMIT most);
    ELSIF n_parts = 1 THEN
        RETURN ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.pairs @> (query.pairs) AND i.doc @@ part_1 AND (i.doc @@ query.phrases) IS TRUE
              AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            LIMIT most);
    ELSIF n_parts = 2 THEN
        RETURN ARRAY(
            SELECT i.segment_id FROM public.search_segments i
            WHERE i.pairs @> (query.pairs) AND i.doc @@ part_1 AND i.doc @@ part_2 AND (i.doc @@ query.phrases) IS TRUE
              AND i.segment_id + 0 < below AND (query.checked IS NULL OR (i.doc @@ query.checked) IS TRUE)
              AND (query.from_on IS NULL OR i.said_on >= query.from_on)
              AND (query.to_on IS NULL OR i.said_on <= query.to_on)
            LIMIT most);
    END IF;
    RETURN ARRAY(
        SELECT i.segment_id FROM public.search_segments i
        WHERE i.pairs @> (query.pairs) AND i.doc @@ part_1 AND i.doc @@ part_2 AND i.doc @@ part_3 AND i.doc @@ part_4 AND i.doc @@ part_5
          AND i.doc @@ part_6
          AND (i.doc @@ query.phrases) IS TRUE
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
        query.words || query.phrases || query.like_beginnings || query.filters, NULL)::text[];
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

-- The newest id of the days asked for; 0 where none is of those days; NULL where they are so many that the walk through
-- windows is as fast.
CREATE FUNCTION public.search_newest_of_days(query public.search_query) RETURNS bigint
    LANGUAGE plpgsql STABLE
AS $$
DECLARE
    most_days CONSTANT integer := 3653;
    first_on date;
    last_on date;
BEGIN
    SELECT greatest(min(i.said_on), query.from_on), least(max(i.said_on), query.to_on) INTO first_on, last_on
    FROM public.search_segments i;
    IF first_on > last_on OR first_on IS NULL THEN
        RETURN 0;
    ELSIF last_on > first_on + most_days THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT coalesce(max(of_day.newest), 0)
            FROM generate_series(0, last_on - first_on) AS d (n)
            CROSS JOIN LATERAL (SELECT i.segment_id AS newest FROM public.search_segments i WHERE i.said_on = first_on + d.n
                                ORDER BY i.segment_id DESC LIMIT 1) AS of_day);
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
    of_filter public.search_query;
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
            AND coalesce(query.words[1], query.beginnings, query.phrases) IS NOT NULL THEN
        -- what is said seldom lies far apart: to look each row up among those of a broadcaster that has a good part of
        -- the archive takes longer than to read it
        -- (of all of it, by the planner's statistics, and of the newest rows too: one batch may fill those)
        of_filter.words := '{}'; of_filter.pairs := '{}'; of_filter.filters := query.filters[n_filters :];
        SELECT public.search_estimate(of_filter) > 0.3 * c.reltuples
               AND (SELECT avg((x.doc @@ query.filters[n_filters])::integer) > 0.3
                    FROM (SELECT i.doc FROM public.search_segments i ORDER BY i.segment_id DESC LIMIT 500) x)
        INTO is_frequent
        FROM pg_class c WHERE c.oid = 'public.search_segments'::regclass;
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
            place := least(public.search_newest_of_days(query) + 1, place);
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
        -- the next wider one holds eight times as many ids
        IF level < widest AND cardinality(ids) * 8 <= n - cardinality(found) AND place % (1::bigint << shifts[level + 1]) = 0 THEN
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
    reads_all CONSTANT boolean := coalesce(query.words[1], query.beginnings, query.phrases, query.filters[1]) IS NULL;
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
        all_so.words := '{}'; all_so.phrases := NULL; all_so.pairs := '{}'; all_so.filters := '{}';
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
    SELECT min(i.segment_id) INTO lowest FROM public.search_segments i;
    WHILE place > lowest AND cardinality(found) < n LOOP
        span := (place - 1) >> shifts[level];
        found := found || public.search_window(words_of_wide, (names[level] || span)::tsquery, place, NULL);
        place := span << shifts[level];
    END LOOP;
    RETURN ARRAY(SELECT f.id FROM unnest(found) AS f (id) ORDER BY f.id DESC LIMIT n);
END $$;
