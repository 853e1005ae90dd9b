-- What callers ask: pages of hits, all matches, how many. It stands on search_windows.sql.

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
    public.search_range, public.search_newest, public.search_newest_wide, public.search_page FROM PUBLIC;

COMMENT ON FUNCTION archive.search IS 'Segments that match, 1 to 100 at a time: the newest 250, best first, then the next older 250, and so on; pass the last row''s cursor as after to read on. query: words in any inflected form, "a phrase" as written, -without, begin*; accents and case do not matter. broadcaster, programme, model: by name; from and to: days of broadcast (of arrival where not known), both included. Row: rank, segment, recording, times in seconds and as timecode, and a snippet of the text with the words that matched between <mark> and </mark>.';
