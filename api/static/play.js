// Plays passages in place. Without it the links still open the audio at the passage.
const audio = document.getElementById("audio");
const bar = document.getElementById("player");
const playing = document.getElementById("playing");
const problem = document.getElementById("problem");
let current = null; // the button whose passage is in the player
let stopAt = Infinity;

function show() {
  for (const button of document.querySelectorAll("button.play")) {
    const isPlaying = button === current && !audio.paused;
    button.querySelector(".do").textContent = isPlaying ? "Pause" : "Play";
    button.closest("li").classList.toggle("playing", button === current);
  }
}

function tell(message) {
  problem.textContent = message;
  problem.hidden = !message;
}

function start() {
  audio.play().catch((error) => {
    // replaced by the next passage, or not allowed before the first key: neither is an error
    if (!["AbortError", "NotAllowedError"].includes(error.name)) failed();
  });
}

async function whyNot(url, otherwise) {
  // the element says no more than that it failed; the server says why, e.g. that the audio has expired
  const answer = await fetch(url.split("#")[0], { headers: { Range: "bytes=0-0" } }).catch(() => null);
  const problem = answer && !answer.ok ? await answer.json().catch(() => null) : null;
  tell(problem?.detail ?? otherwise);
}

function failed() {
  whyNot(audio.src, "The audio cannot be loaded: try again later, or tell whoever runs this server.");
}

function toggle(button) {
  tell("");
  if (button === current && !audio.paused) {
    audio.pause();
    return;
  }
  const from = Number(button.dataset.from);
  const to = button.dataset.to ? Number(button.dataset.to) : Infinity;
  const again = button !== current || audio.currentTime < from || audio.currentTime >= to - 0.05;
  if (!audio.src.endsWith(button.dataset.url)) audio.src = button.dataset.url;
  current = button;
  stopAt = to;
  if (again) audio.currentTime = from;
  playing.textContent = button.dataset.label;
  bar.hidden = false;
  document.body.classList.add("with-player");
  start();
}

function watch() {
  // finer than the browser's own timeupdate, so that the next words are not heard
  if (audio.paused) return;
  if (audio.currentTime >= stopAt) {
    audio.pause();
    stopAt = Infinity; // played on by hand it goes on
    return;
  }
  if (stopAt === Infinity && !current.dataset.to) follow();
  requestAnimationFrame(watch);
}

function follow() {
  // played on, the passage that is heard now is the one that stands out
  let heard = current;
  for (const button of document.querySelectorAll("button.play")) {
    if (Number(button.dataset.from) <= audio.currentTime) heard = button;
  }
  if (heard === current) return;
  current = heard;
  playing.textContent = current.dataset.label;
  show();
}

for (const link of document.querySelectorAll("a.play")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "play";
  button.append(...link.childNodes);
  button.dataset.url = link.getAttribute("href").split("#")[0];
  button.dataset.from = link.dataset.from;
  button.dataset.to = link.dataset.to || "";
  button.dataset.label = button.querySelector(".visually-hidden").textContent.trim();
  button.addEventListener("click", () => toggle(button));
  link.replaceWith(button);
}
audio.addEventListener("playing", () => { show(); watch(); });
audio.addEventListener("pause", show);
audio.addEventListener("seeking", () => { if (audio.currentTime >= stopAt) stopAt = Infinity; });
audio.addEventListener("error", failed);
