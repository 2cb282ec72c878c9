// The page: applications to start, sessions to open; it builds elements, never HTML of strings, so that a name is text
// whatever is in it.
import { ask, SignedOut } from "./api.js";
import { h, morph } from "./dom.js";
import { Live } from "./live.js";
import { Viewer } from "./viewer.js";
import { clock, limit, progress, state } from "./words.js";

const main = document.querySelector("#main");
const header = document.querySelector("header.top");
const trouble = document.querySelector("#trouble");
const told = document.querySelector("#told");
const live = new Live(show, signIn);
let user = null;
let applications = [];
let viewer = null;
let refusal = "";
let begun = false;

/** Where the reader is: a session to look at, or the list. */
function place() {
  const [, view, id = ""] = location.hash.replace(/^#/, "").split("/");
  return view === "session" ? { session: decodeURIComponent(id) } : {};
}

// --- signing in ---------------------------------------------------------------------------------------------

function signIn(why = "") {
  user = null;
  applications = [];
  live.forget();
  leaveViewer();
  header.hidden = true;
  trouble.hidden = true;
  const submit = async (event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    const button = event.target.querySelector("button");
    button.disabled = true;
    try {
      await ask("POST", "/api/login", { username: data.get("username"), password: data.get("password") });
      await begin();
    } catch (error) {
      signIn(error.message);
      main.querySelector("[name=password]").select();
    } finally {
      button.disabled = false;
    }
  };
  document.title = "Sign in – Applications";
  morph(main, [
    h("section", { class: "panel sign-in" }, h("img", { src: "/static/icon.svg", alt: "", width: 44, height: 44 }), h("h1", {}, "Applications"),
      h("p", { class: "soft" }, "Desktop programs on the cluster, in your browser. Sign in with your user name and password of the cluster."),
      h("form", { onsubmit: submit },
        h("label", {}, "User name", h("input", { name: "username", required: true, autocomplete: "username", autocapitalize: "none", spellcheck: "false" })),
        h("label", {}, "Password", h("input", { type: "password", name: "password", required: true, autocomplete: "current-password", "aria-describedby": "refused" })),
        h("p", { class: "refused", id: "refused", role: "alert" }, why),
        h("button", { type: "submit", class: "main" }, "Sign in"))),
  ]);
}

document.querySelector("#sign-out").addEventListener("click", async () => {
  await ask("DELETE", "/api/login").catch(() => null);
  signIn();
});

/** Ask who we are, and listen. */
async function begin() {
  try {
    user = await ask("GET", "/api/user");
    ({ applications } = await ask("GET", "/api/app/applications"));
  } catch (error) {
    if (error instanceof SignedOut) return void signIn(error.message);
    trouble.textContent = error.message;
    trouble.hidden = false;
    setTimeout(begin, 2000);
    return;
  }
  begun = true;
  document.querySelector("#who").textContent = user.admin ? `${user.user}, administrator` : user.user;
  live.open();
  show();
}

// --- what a reader does ---------------------------------------------------------------------------------------

async function act(work) {
  refusal = "";
  try {
    await work();
  } catch (error) {
    if (error instanceof SignedOut) return void signIn(error.message);
    refusal = error.message;
  }
  show();
}

function start(application) {
  return act(async () => {
    const session = await ask("POST", "/api/app/sessions", { app_id: application.id });
    live.put(session);
    location.hash = `#/session/${encodeURIComponent(session.id)}`;
  });
}

function restart(session) {
  return act(async () => live.put(await ask("POST", `/api/app/sessions/${encodeURIComponent(session.id)}/restart`)));
}

function stop(session) {
  return act(async () => {
    live.mark(session.id, true);
    let left;
    try {
      left = await ask("DELETE", `/api/app/sessions/${encodeURIComponent(session.id)}`);
    } catch (error) {
      live.mark(session.id, false);
      throw error;
    }
    if (left) return void live.put(left);
    live.drop(session.id);
    told.textContent = `${session.title} is stopped.`;
    if (place().session === session.id) location.hash = "#/";
  });
}

// --- the list -------------------------------------------------------------------------------------------------

function list() {
  const sessions = live.list();
  return [
    h("h1", { class: "visually-hidden" }, "Applications"),
    refusal && h("p", { class: "panel refusal", role: "alert" }, refusal),
    h("section", { "aria-labelledby": "mine" },
      h("div", { class: "heading" }, h("h2", { id: "mine" }, live.everybody ? "Everybody's sessions" : "My sessions"),
        user.admin && h("button", { type: "button", class: "quiet", "aria-pressed": String(live.everybody), onclick: () => live.open(!live.everybody) }, "Everybody's")),
      sessions.length ? h("ul", { class: "sessions" }, ...sessions.map(card)) : h("p", { class: "nothing" }, live.known ? "None yet. Start an application below." : "Loading …")),
    h("section", { "aria-labelledby": "apps" }, h("div", { class: "heading" }, h("h2", { id: "apps" }, "Start an application")),
      applications.length ? h("ul", { class: "applications" }, ...applications.map(tile)) : h("p", { class: "nothing" }, "There is no application that you may start. Ask an administrator.")),
  ];
}

function card(session) {
  const [word, look] = state(session);
  const mine = session.owner === user.user;
  const over = session.status === "stopped" || session.status === "error";
  const name = `${session.title}, ${session.id}`;
  const button = (text, onclick, attributes = {}) => h("button", { type: "button", onclick, "aria-label": `${text} ${name}`, ...attributes }, text);
  const facts = [
    !mine && `of ${session.owner}`, session.job_id && `job ${session.job_id}`, session.node && `on ${session.node}`,
    session.running_at && !over ? `since ${clock(session.running_at)}` : session.ended_at ? `ended ${clock(session.ended_at)}` : `asked for ${clock(session.created_at)}`,
  ].filter(Boolean);
  return h("li", { class: "panel session", key: session.id, "data-session": session.id, "data-status": session.status },
    h("span", { class: `glyph ${hue(session.app_id)}`, "aria-hidden": "true" }, session.title.slice(0, 1)),
    h("div", { class: "about" }, h("h3", {}, session.title, " ", h("span", { class: `state ${look}` }, word)),
      h("p", { class: "soft" }, facts.join(" · ")),
      progress(session) && h("p", { class: session.status === "error" ? "refused" : "soft" }, progress(session))),
    h("div", { class: "actions" },
      mine && !over && h("a", { class: `button${session.status === "running" && !session.ending ? " main" : ""}`, href: `#/session/${encodeURIComponent(session.id)}`, "aria-label": `Open ${name}` }, "Open"),
      mine && button("Restart", () => restart(session), { disabled: session.ending }),
      button(over ? "Remove" : "Stop", () => stop(session), { class: "danger", disabled: session.ending })));
}

function tile(application) {
  return h("li", { class: "panel application", key: application.id },
    h("span", { class: `glyph ${hue(application.id)}`, "aria-hidden": "true" }, application.title.slice(0, 1)),
    h("div", { class: "about" }, h("h3", {}, application.title), h("p", {}, application.description),
      h("p", { class: "soft" }, `${application.cpus} CPU${application.cpus > 1 ? "s" : ""} · ${application.memory} · ${limit(application.time)}`)),
    h("button", { type: "button", class: "main", onclick: () => start(application), "aria-label": `Start ${application.title}` }, "Start"));
}

/** One of six colours, the same for an application wherever it stands. */
function hue(id) {
  return `hue-${[...id].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % 6}`;
}

// --- showing --------------------------------------------------------------------------------------------------

function leaveViewer() {
  viewer?.close();
  viewer = null;
}

function show(message) {
  if (!user) return;
  const { session: id } = place();
  header.hidden = Boolean(id);
  const said = !live.connected && begun && live.known === false && live.sessions.size ? "The service does not answer; trying again." : live.slurm.ok ? "" : `${live.slurm.message}. Sessions are shown as they were last seen.`;
  if (trouble.textContent !== said) trouble.textContent = said;
  trouble.hidden = !said;
  if (message?.type === "session") tell(message.session);
  if (!id) {
    leaveViewer();
    document.title = "Applications";
    return void morph(main, list());
  }
  const session = live.sessions.get(id);
  if (viewer?.id === id) {
    if (live.connected || session) viewer.update(session);
    return;
  }
  leaveViewer();
  if (session && session.owner === user.user) {
    viewer = new Viewer(session, { restart, stop, signedOut: signIn });
    main.replaceChildren(viewer.element);
    document.title = `${session.title} – Applications`;
  } else if (live.known) {
    header.hidden = false;
    morph(main, [h("p", { class: "nothing" }, "There is no such session of yours. ", h("a", { href: "#/" }, "To the applications"))]);
  } else morph(main, [h("p", { class: "nothing" }, "Loading …")]);
}

/** Say changes of state to those who do not see them. */
function tell(session) {
  const words = `${session.title} is ${state(session)[0]}. ${progress(session)}`;
  if (told.textContent !== words) told.textContent = words;
}

addEventListener("hashchange", () => {
  refusal = "";
  show();
  if (!place().session) main.focus();
  scrollTo(0, 0);
});
begin();
