-- Search: what a word is, what is indexed, and how matches are found. docs/decisions/0017 has the reasons.

-- --- words ------------------------------------------------------------------------------------------------

CREATE TEXT SEARCH DICTIONARY public.fonoteca_stemmer (TEMPLATE = snowball, LANGUAGE = portuguese);
COMMENT ON TEXT SEARCH DICTIONARY public.fonoteca_stemmer IS
    'Portuguese snowball without stop words, for Galician without accents: what the lexicon does not know.';

CREATE FUNCTION public.search_fold(content text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE  -- not STRICT, so that it becomes part of the query that calls it
    RETURN CASE WHEN octet_length(content) = char_length(content) THEN lower(content COLLATE "pg_c_utf8")
                ELSE lower(regexp_replace(normalize(content, NFD), '[\u0300-\u036f]', '', 'g')
                           COLLATE "pg_c_utf8") END;
COMMENT ON FUNCTION public.search_fold(text) IS 'Text in lower case, without accents.';

CREATE FUNCTION public.search_tokens(content text) RETURNS TABLE (place integer, gap text, word text)
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE ROWS 50
BEGIN ATOMIC
    SELECT t.ordinality::integer, t.parts[1], t.parts[2]
    FROM regexp_matches(content COLLATE "pg_c_utf8", '([^[:alnum:]]*)([[:alnum:]]*)', 'g')
         WITH ORDINALITY AS t (parts, ordinality)
    WHERE t.parts[1] <> '' OR t.parts[2] <> '';
END;
COMMENT ON FUNCTION public.search_tokens(text) IS
    'A text as words (letters and digits) and what stands before each, in order. Together they are the text.';

CREATE TABLE public.search_lexicon (
    form text COLLATE "C" NOT NULL,
    stems text[] NOT NULL,
    CONSTRAINT pk_search_lexicon PRIMARY KEY (form)
);

CREATE FUNCTION public.search_verb_stems(form text) RETURNS text[]
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT ts_lexize('public.fonoteca_stemmer', public.search_fold(search_verb_stems.form)) || coalesce(array_agg(DISTINCT x.stem), '{}')
    FROM unnest('{me,te,che,lle,nos,vos,lles,se,lo,la,los,las,na,nas,o,a,os,as,no}'::text[]) AS p (pronoun)
    CROSS JOIN LATERAL (SELECT left(search_verb_stems.form, -char_length(p.pronoun)) AS verb) b
    CROSS JOIN LATERAL unnest(ARRAY[b.verb, public.search_fold(b.verb)]
        || CASE WHEN p.pronoun IN ('lo', 'la', 'los', 'las')  -- atopámolo: atopamos
                THEN ARRAY[b.verb || 'r', public.search_fold(b.verb) || 'r', b.verb || 's', public.search_fold(b.verb) || 's']
                WHEN p.pronoun = 'nos' THEN ARRAY[b.verb || 's', public.search_fold(b.verb) || 's']
                ELSE '{}'::text[] END) AS c (candidate)
    LEFT JOIN public.search_lexicon k ON k.form = c.candidate COLLATE "C"
    CROSS JOIN LATERAL unnest(coalesce(k.stems, ts_lexize('public.fonoteca_stemmer', public.search_fold(c.candidate)))) x (stem)
    WHERE right(search_verb_stems.form, char_length(p.pronoun)) = p.pronoun AND char_length(b.verb) >= 3
      AND (search_verb_stems.form ~ '[áéíóú]'
           OR (p.pronoun NOT IN ('o', 'a', 'os', 'as', 'no')
               AND b.verb ~ '(r|ndo|ou|eu|iu|ei|in|ron|ba|ra|se|n|mos|des)$'));
END;
COMMENT ON FUNCTION public.search_verb_stems(text) IS
    'Stems of a word that may end in an attached pronoun (faloulle, díxome): its own, and those of the verb before it.';

-- The lexicon holds every form of the dictionary that has the shape of a verb with a pronoun: only unknown words are split.
CREATE FUNCTION public.search_unknown_stems(form text) RETURNS text[]
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN form ~ ('([áéíóú].*(me|te|che|lles?|[nv]os|se|l[oa]s?|n[oa]s?|[oa]s?)'
                             '|(r|ndo|ou|eu|iu|ei|in|ron|ba|ra|se|n|mos|des)(me|te|che|lles?|[nv]os|se|l[oa]s?|nas?))$')
                THEN public.search_verb_stems(form)
                ELSE ts_lexize('public.fonoteca_stemmer', public.search_fold(form)) END;

CREATE FUNCTION public.search_stems(word text) RETURNS text[]
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(l.stems, public.search_unknown_stems(w.form))
    FROM (SELECT left(lower(word COLLATE "pg_c_utf8"), 64) COLLATE "C" AS form) w
    LEFT JOIN public.search_lexicon l ON l.form = w.form;
END;
COMMENT ON FUNCTION public.search_stems(text) IS
    'What stands for all inflected forms of a word: usually one stem; several where its accents are missing, or where a
pronoun is attached.';

CREATE FUNCTION public.search_pair(one text, next text) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (crc32(convert_to(one || ' ' || next, 'UTF8')) & 1048575)::integer;
COMMENT ON FUNCTION public.search_pair(text, text) IS
    'One of 2^20 numbers for two folded words that follow each other: finds phrases of common words.';

-- --- what is indexed --------------------------------------------------------------------------------------

CREATE TABLE public.search_segments (
    segment_id bigint NOT NULL,
    broadcaster_id integer NOT NULL,
    recording_id uuid NOT NULL,
    said_on date NOT NULL,
    doc tsvector NOT NULL,
    pairs integer[] NOT NULL,
    CONSTRAINT pk_search_segments PRIMARY KEY (segment_id)
);
-- rows of a thousand bytes stay whole in the table; frequent words and filters are known to the planner
ALTER TABLE public.search_segments ALTER COLUMN doc SET STORAGE MAIN, ALTER COLUMN pairs SET STORAGE MAIN;
ALTER TABLE public.search_segments ALTER COLUMN doc SET STATISTICS 500, ALTER COLUMN pairs SET STATISTICS 100;
ALTER TABLE public.search_segments SET (autovacuum_analyze_scale_factor = 0.02);
-- no pending list: each search would read through it
CREATE INDEX ix_search_segments_doc_pairs ON public.search_segments USING gin (doc, pairs) WITH (fastupdate = off);

CREATE TABLE public.search_words (
    word text COLLATE "C" NOT NULL,
    CONSTRAINT pk_search_words PRIMARY KEY (word)
);
-- no constraint on it: two workers that meet the same new word must not wait for each other
CREATE TABLE public.search_new_words (
    word text COLLATE "C" NOT NULL
);
CREATE INDEX ix_search_new_words_word ON public.search_new_words (word);

CREATE TABLE public.search_backfill (
    is_only boolean NOT NULL DEFAULT true,
    below_segment_id bigint NOT NULL,
    CONSTRAINT pk_search_backfill PRIMARY KEY (is_only),
    CONSTRAINT ck_search_backfill_one_row CHECK (is_only)
);

CREATE FUNCTION public.search_programme_facet(programme text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN '/p' || left(md5(public.search_fold(normalize(programme, NFC))), 16);

CREATE FUNCTION public.search_day(day date) RETURNS date
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN least(greatest(day, date '1880-01-01'), date '2199-12-31');
COMMENT ON FUNCTION public.search_day(date) IS 'A day as the filters know it: none before sound was recorded.';

-- Words as they stand (folded, with their places), their stems behind `~`, and behind `/` what filters ask for:
-- broadcaster, programme, model, decade, year and month, and in which window of segment ids the row lies.
CREATE FUNCTION public.search_document(content text, facets text[], OUT doc tsvector, OUT pairs integer[])
    LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    -- words with their accents are looked up in the lexicon, those without are what is found; accents that belong to no
    -- letter are dropped first, so that both lists have the same words
    WITH cleaned AS MATERIALIZED (
        SELECT regexp_replace(normalize(content, NFC), '[\u0300-\u036f]', '', 'g') AS text
    ), words AS MATERIALIZED (
        SELECT left(lower(w.spoken[1] COLLATE "pg_c_utf8"), 64) COLLATE "C" AS form, left(w.folded[1], 64) AS folded, w.place
        FROM cleaned c
        CROSS JOIN LATERAL ROWS FROM (
            regexp_matches(c.text COLLATE "pg_c_utf8", '[[:alnum:]]+', 'g'),
            regexp_matches(public.search_fold(c.text) COLLATE "pg_c_utf8", '[[:alnum:]]+', 'g')
        ) WITH ORDINALITY AS w (spoken, folded, place)
        WHERE w.place <= 1000 AND w.folded IS NOT NULL
    ), joined AS (
        SELECT w.folded, w.place, lead(w.folded) OVER (ORDER BY w.place) AS next,
               coalesce(l.stems, public.search_unknown_stems(w.form)) AS stems
        FROM words w
        LEFT JOIN public.search_lexicon l ON l.form = w.form
    )
    SELECT (coalesce(string_agg(j.folded || ':' || j.place || ' ~' || array_to_string(j.stems, ' ~'), ' '), '')
            || ' ' || array_to_string(facets, ' '))::tsvector,
           coalesce(array_agg(public.search_pair(j.folded, j.next)) FILTER (WHERE j.next IS NOT NULL), '{}')
    FROM joined j;
END;

CREATE FUNCTION public.search_index(segment_ids bigint[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    WITH indexed AS (
        INSERT INTO public.search_segments AS i (segment_id, broadcaster_id, recording_id, said_on, doc, pairs)
        SELECT s.id, s.broadcaster_id, s.recording_id, d.said_on, x.doc, x.pairs
        FROM public.segments s
        JOIN public.transcripts t ON t.id = s.transcript_id AND t.is_current
        JOIN public.recordings r ON r.id = s.recording_id
        CROSS JOIN LATERAL (SELECT coalesce(r.broadcast_on,
                                            (coalesce(r.received_at, r.created_at) AT TIME ZONE 'UTC')::date)) d (said_on)
        CROSS JOIN LATERAL (SELECT public.search_day(d.said_on)) f (day)
        CROSS JOIN LATERAL public.search_document(s.text, ARRAY[
            '/b' || s.broadcaster_id, '/m' || t.model_id, public.search_programme_facet(r.programme),
            '/c' || to_char(f.day, 'YYYY')::integer / 10, '/y' || to_char(f.day, 'YYYY'), '/d' || to_char(f.day, 'YYYYMM'),
            '/w' || (s.id >> 12), '/v' || (s.id >> 15), '/u' || (s.id >> 18), '/t' || (s.id >> 21)]) x
        WHERE s.id = ANY (segment_ids) AND s.state = 'done' AND s.text <> ''
        ORDER BY s.id
        ON CONFLICT (segment_id) DO UPDATE
            SET said_on = excluded.said_on, doc = excluded.doc, pairs = excluded.pairs
        RETURNING i.doc
    )
    INSERT INTO public.search_new_words (word)
    SELECT DISTINCT u.lexeme FROM indexed x CROSS JOIN LATERAL unnest(x.doc) u
    WHERE left(u.lexeme, 1) NOT IN ('~', '/')
      AND NOT EXISTS (SELECT FROM public.search_words w WHERE w.word = u.lexeme COLLATE "C")
      AND NOT EXISTS (SELECT FROM public.search_new_words w WHERE w.word = u.lexeme COLLATE "C");
END $$;
COMMENT ON FUNCTION public.search_index(bigint[]) IS
    'Indexes those of the given segments that have a text and belong to a current transcript; anew where they were.';

CREATE FUNCTION public.segments_text_to_nfc() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.text := normalize(NEW.text, NFC);
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION public.segments_text_to_nfc FROM PUBLIC;

CREATE FUNCTION public.search_follow_segment() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.text IS NULL OR NEW.text = '' THEN
        DELETE FROM public.search_segments WHERE segment_id = NEW.id;
    ELSE
        BEGIN
            PERFORM public.search_index(ARRAY[NEW.id]);
        EXCEPTION WHEN program_limit_exceeded THEN
            -- a text must be stored whatever it holds; `fonoteca check` counts what is not indexed
            RAISE WARNING 'segment % is not indexed: %', NEW.id, SQLERRM;
        END;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION public.search_follow_transcript() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.is_current THEN
        PERFORM public.search_index(ARRAY(SELECT id FROM public.segments WHERE transcript_id = NEW.id AND state = 'done'));
    ELSE
        DELETE FROM public.search_segments
        WHERE segment_id IN (SELECT id FROM public.segments WHERE transcript_id = NEW.id);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION public.search_follow_recording() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- a text that is being changed is waited for, so that the older one is not indexed over it
    PERFORM FROM public.transcripts t JOIN public.segments s ON s.transcript_id = t.id
    WHERE t.recording_id = NEW.id AND t.is_current AND s.state = 'done' ORDER BY s.id FOR SHARE OF s;
    PERFORM public.search_index(ARRAY(
        SELECT s.id FROM public.transcripts t JOIN public.segments s ON s.transcript_id = t.id
        WHERE t.recording_id = NEW.id AND t.is_current AND s.state = 'done'));
    RETURN NULL;
END $$;
