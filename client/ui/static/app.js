// Keeps the page as the daemon says that it is. The server makes the HTML; here only
// what differs is changed, so that focus, selection and what is open stay.
"use strict";
document.documentElement.classList.add("js");

const live = document.getElementById("live");
let paused = false, pending = null;

// morph makes the children of a node those of another. Children with an id stay the
// same ones, and are moved only where their order is another: what is moved loses the
// focus. New rows are marked.
function morph(from, to, mark) {
  const known = new Map(), wanted = new Set();
  for (const c of from.children) if (c.id) known.set(c.id, c);
  for (const c of to.children) wanted.add(c.id);
  let at = from.firstChild;
  for (const want of [...to.childNodes]) {
    let have = want.id ? known.get(want.id) : at;
    if (have && have.nodeType === 1 && have.id !== (want.id || "")) have = null;
    if (have && have !== at) {
      while (at && at !== have && !(at.id && wanted.has(at.id))) {
        const next = at.nextSibling;
        at.remove();
        at = next;
      }
    }
    if (!have || have.nodeType !== want.nodeType || have.nodeName !== want.nodeName) {
      const made = document.importNode(want, true);
      if (mark && made.id) made.classList.add("new");
      from.insertBefore(made, at);
      continue;
    }
    if (have === at) at = at.nextSibling;
    else from.insertBefore(have, at);
    if (have.nodeType === 1) same(have, want, mark);
    else if (have.nodeValue !== want.nodeValue) have.nodeValue = want.nodeValue;
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// same makes an element like another. What the user does to it stays.
function same(have, want, mark) {
  if (have.isEqualNode(want)) return;
  const users = { DETAILS: ["open"], BUTTON: ["disabled", "class"], TR: ["class"], LI: ["class"] }[have.nodeName] || [];
  for (const a of [...have.attributes]) if (!want.hasAttribute(a.name) && !users.includes(a.name)) have.removeAttribute(a.name);
  for (const a of want.attributes) if (have.getAttribute(a.name) !== a.value && !users.includes(a.name)) have.setAttribute(a.name, a.value);
  if (have.nodeName === "BUTTON" && have.disabled) return;
  if (have.nodeName === "SELECT" || have === document.activeElement && have.nodeName === "INPUT") return;
  morph(have, want, mark);
}

function show(html) {
  const parsed = document.createElement("template"); // in which nothing runs
  parsed.innerHTML = html;
  morph(live, parsed.content, true);
}

// A page that nobody looks at asks for nothing: browsers have six connections for all of
// ours. It says now and then that it is there, or the port would be closed.
let source = null;
function listen() {
  if (source) source.close();
  source = null;
  if (document.hidden) return;
  source = new EventSource(document.body.dataset.live);
  source.onmessage = (e) => {
    const html = JSON.parse(e.data);
    if (paused) pending = html;
    else show(html);
  };
  source.onerror = () => {
    const pill = live.querySelector(".pill");
    if (!pill) return;
    pill.className = "pill error";
    pill.lastChild.nodeValue = source.readyState === EventSource.CLOSED ? "Over: run podnet ui" : "No answer";
  };
}
listen();
document.addEventListener("visibilitychange", listen);
setInterval(() => { if (document.hidden) fetch("/static/icon.svg").catch(() => {}); }, 180000);

const pause = document.getElementById("pause");
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", paused);
  pause.textContent = paused ? "Resume updates" : "Pause updates";
  if (!paused && pending) show(pending);
  pending = null;
});

document.addEventListener("click", async (e) => {
  const button = e.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  const was = button.firstChild.nodeValue;
  button.firstChild.nodeValue = "Copied";
  setTimeout(() => { button.firstChild.nodeValue = was; }, 1200);
});

// A button that takes its time says so, and is not pressed twice.
document.addEventListener("submit", (e) => {
  const button = e.target.querySelector("button[data-busy]");
  if (!button) return;
  button.firstChild.nodeValue = button.dataset.busy;
  setTimeout(() => { button.disabled = true; });
});
window.addEventListener("pageshow", (e) => { if (e.persisted) location.reload(); });

// A choice of a namespace, say, counts at once.
document.addEventListener("change", (e) => { if (e.target.matches(".sift select")) e.target.form.requestSubmit(); });
