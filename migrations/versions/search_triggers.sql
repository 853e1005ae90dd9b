-- What of search touches the tables that workers write: by itself and last, so that they are locked for a moment only.

ALTER TABLE public.search_segments ADD CONSTRAINT fk_search_segments_segment_id
    FOREIGN KEY (segment_id) REFERENCES public.segments (id) ON DELETE CASCADE;

-- one way to write each letter; a trigger and not a constraint, because workers of before do not know of it
CREATE TRIGGER segments_text_nfc BEFORE INSERT OR UPDATE OF text ON public.segments
    FOR EACH ROW WHEN (NEW.text IS NOT NFC NORMALIZED) EXECUTE FUNCTION public.segments_text_to_nfc();
CREATE TRIGGER search_follow_new AFTER INSERT ON public.segments
    FOR EACH ROW WHEN (NEW.text IS NOT NULL) EXECUTE FUNCTION public.search_follow_segment();
CREATE TRIGGER search_follow_text AFTER UPDATE OF text ON public.segments
    FOR EACH ROW WHEN (OLD.text IS DISTINCT FROM NEW.text) EXECUTE FUNCTION public.search_follow_segment();
CREATE TRIGGER search_follow_current AFTER UPDATE OF is_current, model_id ON public.transcripts
    FOR EACH ROW WHEN (OLD.is_current IS DISTINCT FROM NEW.is_current OR OLD.model_id IS DISTINCT FROM NEW.model_id)
    EXECUTE FUNCTION public.search_follow_transcript();
CREATE TRIGGER search_follow_programme AFTER UPDATE OF programme, broadcast_on, received_at ON public.recordings
    FOR EACH ROW WHEN (OLD.programme IS DISTINCT FROM NEW.programme OR OLD.broadcast_on IS DISTINCT FROM NEW.broadcast_on
                       OR OLD.received_at IS DISTINCT FROM NEW.received_at)
    EXECUTE FUNCTION public.search_follow_recording();

-- what was stored before this migration is indexed in steps by the sweep, newest first
INSERT INTO public.search_backfill (below_segment_id) SELECT coalesce(max(id) + 1, 0) FROM public.segments;
