// A session's display, by noVNC: https://novnc.com/noVNC/docs/API.html
import RFB from "/novnc/core/rfb.js";
import { ask, Away, SignedOut, socketAddress } from "./api.js";
import { h } from "./dom.js";
import { progress, sentence, state } from "./words.js";

const AGAIN_MS = 1000;
/** Codes after which nothing is gained by connecting again: 4000 and HTTP's status, and the display's own end. */
const NOT_FOUND = 4404;

export class Viewer {
  /** Shows a session until `close`; `actions` are functions back, stop, restart, signedOut. */
  constructor(session, actions) {
    this.id = session.id;
    this._session = session;
    this._actions = actions;
    this._build();
    this.update(session);
  }

  _build() {
    const button = (text, onclick, attributes = {}) => h("button", { type: "button", onclick, ...attributes }, text);
    this._title = h("h1", {});
    this._chip = h("span", { class: "state" });
    this._fit = button("Fit to window", () => this._scale(this._fit.getAttribute("aria-pressed") !== "true"), { "aria-pressed": "true" });
    this._clipboardButton = button("Clipboard", () => this._showClipboard(this._clipboard.hidden), { "aria-expanded": "false", "aria-controls": "clipboard" });
    this._full = button("Full screen", () => (document.fullscreenElement ? document.exitFullscreen() : this.element.requestFullscreen()));
    this._restart = button("Restart", () => this._actions.restart(this._session));
    this._stop = button("Stop", () => this._actions.stop(this._session), { class: "danger" });
    this._picture = h("div", { class: "picture", role: "group", "aria-label": "The display. Shift and Escape leave it." });
    this._words = h("p", {});
    this._why = h("p", { class: "soft" });
    this._again = button("Connect again", () => this._connect(), { class: "main", hidden: true });
    this._cover = h("div", { class: "cover" }, h("div", { class: "spinner", "aria-hidden": "true" }), this._words, this._why, this._again);
    this._text = h("textarea", { id: "clipboard-text", rows: 6, spellcheck: "false", "aria-describedby": "clipboard-help" });
    this._clipboard = h("section", { class: "clipboard", id: "clipboard", hidden: true, "aria-label": "Clipboard" },
      h("label", { for: "clipboard-text" }, "Clipboard of the session"), this._text,
      h("p", { class: "soft", id: "clipboard-help" }, "What is copied there comes here; what is typed here can be pasted there."));
    this._text.oninput = () => this._rfb?.clipboardPasteFrom(this._text.value);
    this.element = h("section", { class: "viewer", "aria-label": "Session" },
      h("div", { class: "bar", role: "toolbar", "aria-label": "Session" },
        h("a", { href: "#/", class: "back" }, "← Applications"), this._title, this._chip,
        h("span", { class: "keys soft" }, "Shift + Esc leaves the picture"),
        this._fit, this._clipboardButton, this._full, this._restart, this._stop),
      this._clipboard, h("div", { class: "stage" }, this._picture, this._cover));
    // noVNC takes every key that its canvas gets; this one comes before it.
    this._picture.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !event.shiftKey) return;
      event.preventDefault();
      event.stopPropagation();
      this.element.querySelector(".back").focus();
    }, { capture: true });
  }

  /** Take the session as it is now; null once it is gone. */
  update(session) {
    if (!session) {
      this._session = { ...this._session, status: "stopped", ending: false, message: "The session is gone." };
    } else this._session = session;
    const now = this._session;
    const [word, look] = state(now);
    this._title.textContent = now.title;
    this._chip.className = `state ${look}`;
    this._chip.textContent = now.status === "running" && now.node && !now.ending ? `${word} on ${now.node}` : word;
    this._restart.disabled = now.ending || !session;
    this._stop.disabled = now.ending || !session;
    this._stop.textContent = now.status === "stopped" || now.status === "error" ? "Remove" : "Stop";
    this._run = `${now.run}`;
    if (now.status === "running" && !now.ending) {
      if (!this._socket && !this._waiting && this._run !== this._refusedRun) this._connect();
      return;
    }
    this._refusedRun = null;
    this._disconnect();
    const ended = now.status === "stopped" || now.status === "error";
    this._say(ended && !now.ending ? (now.status === "error" ? "It could not be started, or failed." : "The session has ended.") : "Starting …", progress(now), { busy: !ended || now.ending });
  }

  /** Leave it; the session goes on. */
  close() {
    this._closed = true;
    this._disconnect();
    if (document.fullscreenElement) document.exitFullscreen();
  }

  async _connect(words = "Connecting …", why = "") {
    this._disconnect();
    this._waiting = true;
    this._say(words, why, { busy: true });
    let way;
    try {
      way = await ask("POST", `/api/app/sessions/${encodeURIComponent(this.id)}/connection`);
    } catch (error) {
      this._waiting = false;
      if (error instanceof SignedOut) return void this._actions.signedOut(error.message);
      if (error instanceof Away) return void this._connectAgain();
      return void this._refused("There is no connection to the display.", error.message);
    }
    this._waiting = false;
    if (this._closed || this._session.status !== "running") return;
    const socket = new WebSocket(socketAddress(way.path), way.protocols);
    this._socket = socket;
    socket.addEventListener("close", (event) => this._socketClosed(socket, event));
    const rfb = new RFB(this._picture, socket, { credentials: { password: way.password }, shared: true });
    this._rfb = rfb;
    rfb.scaleViewport = this._fit.getAttribute("aria-pressed") === "true";
    rfb.background = "transparent";
    rfb.addEventListener("connect", () => {
      this._cover.hidden = true;
      this.element.dataset.connected = "true";
      rfb.focus();
    });
    rfb.addEventListener("securityfailure", (event) => {
      this._failure = event.detail.reason || "The display refuses the password.";
    });
    rfb.addEventListener("clipboard", (event) => {
      this._text.value = event.detail.text;
    });
  }

  _socketClosed(socket, event) {
    if (this._socket !== socket) return;
    this._socket = this._rfb = null;
    delete this.element.dataset.connected;
    if (this._closed || this._session.status !== "running" || this._session.ending) return;
    if (this._failure) {
      const why = this._failure;
      this._failure = null;
      return void this._refused("The display refuses the connection.", why);
    }
    if (event.code > 4000 && event.code <= NOT_FOUND) return void this._refused("There is no connection to the display.", event.reason);
    this._connectAgain();
  }

  /** The service or the network is away, or the session is about to end, which the service tells by itself. */
  _connectAgain() {
    if (this._closed) return;
    const lost = ["The connection was lost.", "It is made again."];
    this._say(...lost, { busy: true });
    this._waiting = true;
    setTimeout(() => {
      this._waiting = false;
      if (!this._closed && this._session.status === "running" && !this._session.ending) this._connect(...lost);
    }, AGAIN_MS);
  }

  _refused(words, why) {
    this._refusedRun = this._run;
    this._say(words, sentence(why), { again: true });
  }

  _disconnect() {
    const rfb = this._rfb;
    this._socket = this._rfb = null;
    delete this.element.dataset.connected;
    rfb?.disconnect();
    this._picture.replaceChildren();
  }

  _say(words, why, { busy = false, again = false }) {
    this._cover.hidden = false;
    this._cover.classList.toggle("busy", busy);
    this._words.textContent = words;
    this._why.textContent = why;
    this._again.hidden = !again;
  }

  _scale(fit) {
    this._fit.setAttribute("aria-pressed", String(fit));
    if (this._rfb) this._rfb.scaleViewport = fit;
  }

  _showClipboard(shown) {
    this._clipboard.hidden = !shown;
    this._clipboardButton.setAttribute("aria-expanded", String(shown));
    if (shown) this._text.focus();
  }
}
