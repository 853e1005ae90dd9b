// One drawn segment at a time: hear it, write what is said, save, next. Talks to the same API as programs do.
const at = (id) => document.getElementById(id);
const audio = at("audio");
const NAME = "fonoteca-corrected-by";
const single = new URLSearchParams(location.search).get("segment");

let queue = [];      // still to be shown
let done = [];       // shown before, newest last
let item = null;     // shown now
let after = null;    // where the list of draws goes on
let saved = 0;
let heard = false;   // this one was played: only then it can be judged
let busy = false;

async function call(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
  });
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.detail || `the server answered ${answer.status}`);
  return content;
}

function tell(message) {
  at("problem").textContent = message;
  at("problem").hidden = !message;
}

const clock = (s) => {
  const parts = [Math.floor(s / 60) % 60, Math.floor(s) % 60].map((n) => String(n).padStart(2, "0"));
  return s >= 3600 ? `${Math.floor(s / 3600)}:${parts.join(":")}` : `${Number(parts[0])}:${parts[1]}`;
};

async function more() {
  const page = single
    ? { items: [await call("GET", `/v1/segments/${encodeURIComponent(single)}`)], next: null }
    : await call("GET", `/v1/correction-draws?limit=50${after ? `&after=${after}` : ""}`);
  queue.push(...page.items);
  after = page.next;
  return page.items.length;
}

async function next(play) {
  if (!queue.length && (after || item === null)) await more();
  if (queue.length) show(queue.shift(), play);
  else finish();
}

function finish() {
  item = null;
  audio.pause();
  at("correction").hidden = true;
  at("empty").hidden = false;
  at("draw").hidden = Boolean(single);
  at("empty-text").textContent = single
    ? "Saved. Thank you."
    : saved
      ? "All drawn segments are corrected. Thank you."
      : "No segment waits to be corrected. A draw picks some at random, so that every kind of programme is seen.";
  progress();
}

function progress() {
  const waiting = queue.length + (item ? 1 : 0);
  const parts = [];
  if (!single && item) parts.push(`${waiting}${after ? " or more" : ""} waiting`);
  if (saved) parts.push(`${saved} saved`);
  at("progress").textContent = parts.join(" · ");
}

function show(next, play) {
  item = next;
  heard = false;
  tell("");
  at("empty").hidden = true;
  at("correction").hidden = false;
  at("programme").textContent = item.programme || item.stratum || "";
  at("programme").hidden = !at("programme").textContent;
  at("recording").textContent = item.recording;
  at("recording").href = `/recordings/${item.recording_id}#segment-${item.index}`;
  const facts = [`${clock(item.start_s)} to ${clock(item.end_s)}`];
  if (item.programme_kind && item.programme) facts.unshift(item.programme_kind);
  if (item.broadcast_on) facts.push(`broadcast ${item.broadcast_on}`);
  at("times").textContent = facts.join(" · ");
  at("notice").textContent = item.notice || "";
  at("notice").hidden = !item.notice;
  at("text").value = item.corrected ?? item.text ?? "";
  at("position").max = (item.end_s - item.start_s).toFixed(1);
  at("back").disabled = !done.length;
  audio.src = item.audio_url;
  audio.playbackRate = Number(at("speed").value);
  moved();
  progress();
  at("text").focus();
  at("text").setSelectionRange(0, 0);
  if (play) start();
}

const inside = () => audio.currentTime >= item.start_s - 0.05 && audio.currentTime < item.end_s - 0.05;

function start(fromStart) {
  if (fromStart || !inside()) audio.currentTime = item.start_s;
  audio.play().catch((error) => {
    // replaced by the next one, or not allowed before the first key: neither is an error
    if (!["AbortError", "NotAllowedError"].includes(error.name)) tell(`The audio does not play: ${error.message}`);
  });
}

function toggle() {
  if (audio.paused) start();
  else audio.pause();
}

function moved() {
  if (!item) return;
  const length = item.end_s - item.start_s;
  const place = Math.min(length, Math.max(0, audio.currentTime - item.start_s));
  at("position").value = place.toFixed(1);
  at("clock").textContent = `${place.toFixed(1)} of ${length.toFixed(1)} s`;
}

function watch() {
  // finer than the browser's own timeupdate, so that the next segment is not heard
  if (audio.paused || !item) return;
  if (audio.currentTime >= item.end_s) audio.pause();
  moved();
  requestAnimationFrame(watch);
}

async function save() {
  if (busy || !item) return;
  if (!heard) {
    tell("Hear it first, then save.");
    start(true);
    return;
  }
  const name = at("corrected-by").value.trim();
  if (!name) {
    tell("Write your name: it is kept with the correction.");
    at("corrected-by").focus();
    return;
  }
  busy = true;
  try {
    localStorage.setItem(NAME, name);
    const text = at("text").value.replace(/\s+/g, " ").trim();
    const stored = await call("PUT", `/v1/segments/${item.segment_id}/correction`, { text, corrected_by: name });
    if (!item.isSaved) saved += 1;
    done.push({ ...item, corrected: stored.text, isSaved: true });
    if (single) finish();
    else await next(true);
  } catch (error) {
    tell(`Not saved: ${error.message}`);
  } finally {
    busy = false;
  }
}

function skip() {
  if (busy || !item || single) return;
  done.push(item);
  next(true).catch((error) => tell(error.message));
}

function back() {
  if (busy || !done.length) return;
  queue.unshift(item);
  show(done.pop(), true);
}

audio.addEventListener("playing", () => { heard = true; at("play").textContent = "Pause"; watch(); });
audio.addEventListener("pause", () => { at("play").textContent = "Play"; moved(); });
audio.addEventListener("seeked", moved);
async function whyNot(url, otherwise) {
  // the element says no more than that it failed; the server says why, e.g. that the audio has expired
  const answer = await fetch(url.split("#")[0], { headers: { Range: "bytes=0-0" } }).catch(() => null);
  const problem = answer && !answer.ok ? await answer.json().catch(() => null) : null;
  tell(problem?.detail ?? otherwise);
}

audio.addEventListener("error", () => {
  if (item) whyNot(audio.src, "The audio cannot be loaded: skip this one, and tell whoever runs this server.");
});
at("play").addEventListener("click", toggle);
at("position").addEventListener("input", () => { audio.currentTime = item.start_s + Number(at("position").value); });
at("speed").addEventListener("change", () => { audio.playbackRate = Number(at("speed").value); });
at("back").addEventListener("click", back);
at("skip").addEventListener("click", skip);
at("correction").addEventListener("submit", (event) => { event.preventDefault(); save(); });
at("draw").addEventListener("click", async () => {
  at("draw").disabled = true;
  try {
    queue = (await call("POST", "/v1/correction-draws", { n: 20 })).items;
    if (queue.length) await next(true);
    else at("empty-text").textContent = "Nothing can be drawn: no finished transcript is left that was not drawn or corrected.";
  } catch (error) {
    at("empty-text").textContent = error.message;
  } finally {
    at("draw").disabled = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (!item || event.isComposing) return;
  if (event.key === "Escape") toggle();
  else if (event.ctrlKey && event.key === ",") start(true);
  else if (event.ctrlKey && event.key === ".") skip();
  else if (event.key === "Enter" && event.target === at("text")) save();
  else return;
  event.preventDefault();
});
if (single) {
  at("save").textContent = "Save";
  at("skip").hidden = at("back").hidden = true;
}
at("corrected-by").value = localStorage.getItem(NAME) || "";
next(false).catch((error) => {
  at("empty").hidden = false;
  at("draw").hidden = true;
  at("empty-text").textContent = error.message;
});
