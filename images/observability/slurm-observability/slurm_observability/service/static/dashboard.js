// The dashboard: asks the API every two seconds, and shows what it answers. It builds elements, never HTML of strings,
// so that a job's name is text whatever is in it.
import { chart, spark } from "./charts.js";
import { h, morph } from "./dom.js";
import { bytes, clock, duration, percent, STATES, stateClass } from "./words.js";

const POLL_MS = 2000;
const PAGE = 50;
const main = document.querySelector("#main");
const header = document.querySelector("header.top");
const trouble = document.querySelector("#trouble");
const freshness = document.querySelector("#freshness");
let shownAt = null;
let timer = 0;
let turn = 0;

class SignedOut extends Error {}

/** What the API answers to a GET; its own words where it refuses. */
async function ask(path, query = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== "" && value != null) parameters.append(name, value);
  const answer = await fetch(parameters.size ? `${path}?${parameters}` : path, { cache: "no-store" });
  if (answer.status === 401) throw new SignedOut();
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(body?.error?.message ?? `the service answered ${answer.status}`);
  return body;
}

/** Where the reader is: the part of the address after #, as a view, its argument and its query. */
function place() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  const [, view = "", argument = ""] = path.split("/");
  return { view: view || "queue", argument: decodeURIComponent(argument), query: new URLSearchParams(query) };
}

function link(changes) {
  const query = new URLSearchParams(place().query);
  for (const [name, value] of Object.entries(changes)) value ? query.set(name, value) : query.delete(name);
  return query.size ? `#/?${query}` : "#/";
}

function state(word, title = "") {
  return h("span", { class: `state ${stateClass(word)}`, title }, word.replaceAll("_", " "));
}

function jobLink(id, text = id) {
  return h("a", { href: `#/job/${id}` }, String(text));
}

// --- the queue ----------------------------------------------------------------------------------------------

async function queue({ query }) {
  const offset = Number(query.get("offset")) || 0;
  const filters = { state: query.get("state"), user: query.get("user"), node: query.get("node") };
  const [counts, list] = await Promise.all([
    ask("/v1/jobs/counts"),
    ask("/v1/jobs", { ...filters, limit: PAGE, offset, history: 15 }),
  ]);
  return [
    h("h1", { class: "visually-hidden" }, "Queue"),
    h("div", { class: "bar-of-tools" }, chips(counts.states, filters.state), filterForm(filters)),
    h("div", { class: "panel scroll" }, list.jobs.length ? jobTable(list.jobs) : nothing(filters)),
    list.total > PAGE && pager(list),
  ];
}

function chips(counts, chosen) {
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const chip = (word, text, count) =>
    h("li", {}, h("a", { href: link({ state: word, offset: "" }), "aria-current": chosen === (word || null) ? "true" : null },
      text, h("b", {}, String(count))));
  const known = STATES.filter((word) => counts[word] || word === chosen);
  return h("ul", { class: "chips", "aria-label": "Jobs by state" },
    chip("", "all", all), ...known.map((word) => chip(word, word.replaceAll("_", " "), counts[word] ?? 0)));
}

function filterForm(filters) {
  const field = (name) =>
    h("input", { name, value: filters[name] ?? "", placeholder: name, "aria-label": `Only of this ${name}`, autocomplete: "off" });
  const submit = (event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    location.hash = link({ user: data.get("user").trim(), node: data.get("node").trim(), offset: "" });
  };
  return h("form", { onsubmit: submit, role: "search" }, field("user"), field("node"), h("button", { type: "submit" }, "Filter"));
}

function nothing(filters) {
  const filtered = Object.values(filters).some(Boolean);
  return h("p", { class: "nothing" }, filtered
    ? h("span", {}, "No job fits this filter. ", h("a", { href: "#/" }, "Show all"))
    : "No job has been reported yet. The first one appears here when it starts.");
}

function jobTable(jobs) {
  const columns = ["Job", "User", "State", "Partition", "Nodes", "CPUs", "Time", "CPU", "Memory", "GPU"];
  const right = new Set(["CPUs", "Time"]);
  return h("table", {},
    h("caption", { class: "visually-hidden" }, "Jobs, newest first"),
    h("thead", {}, h("tr", {}, ...columns.map((name) => h("th", { scope: "col", class: right.has(name) ? "number" : "" }, name)))),
    h("tbody", {}, ...jobs.map(jobRow)));
}

function jobRow(job) {
  const title = job.reason ? `waits: ${job.reason}` : job.settled || !job.finished_at ? "" : "not confirmed by slurmdbd yet";
  return h("tr", { key: `${job.cluster}/${job.job_id}` },
    h("td", {}, jobLink(job.job_id), " ", h("span", { class: "soft name", title: job.name }, jobName(job))),
    h("td", {}, h("a", { href: link({ user: job.user, offset: "" }) }, job.user)),
    h("td", {}, state(job.state, title), job.state === "pending" && job.reason && h("span", { class: "soft" }, ` ${job.reason}`)),
    h("td", {}, job.partition),
    h("td", {}, nodeNames(job.node_list)),
    h("td", { class: "number" }, job.cpu_allocation == null ? "" : String(job.cpu_allocation)),
    h("td", { class: "number" }, job.runtime_seconds == null ? "" : duration(job.runtime_seconds)),
    ...uses(job));
}

function jobName(job) {
  return job.array_job_id ? `${job.name} ${job.array_job_id}_${job.array_task_id}` : job.name;
}

function nodeNames(names) {
  if (names.length <= 2) return names.join(", ");
  return h("span", { title: names.join(", ") }, `${names[0]} … ${names.at(-1)} (${names.length})`);
}

function uses(job) {
  const use = job.usage;
  if (!use) {
    const peak = job.peak_memory_bytes;
    const cpu = job.cpu_seconds;
    return [
      h("td", {}, cpu == null ? "" : h("span", { class: "soft" }, `${duration(cpu)} in all`)),
      h("td", {}, peak == null ? "" : h("span", { class: "soft" }, `${bytes(peak)} peak`)),
      h("td", {}),
    ];
  }
  const points = job.history ?? [];
  const limit = job.memory_allocation_mb ? job.memory_allocation_mb * 2 ** 20 : null;
  const memory = use.memory_usage_bytes == null ? "–" : bytes(use.memory_usage_bytes);
  const of = limit ? `of ${bytes(limit)}` : "";
  return [
    h("td", {}, h("div", { class: "use" }, spark(points, "cpu_usage_percent", 100, "CPU"), h("span", {}, percent(use.cpu_usage_percent)))),
    h("td", {}, h("div", { class: "use", title: `${memory} ${of}` },
      spark(points, "memory_usage_bytes", limit, "memory"), h("span", {}, memory))),
    h("td", {}, use.gpu_usage_percent == null ? "" : percent(use.gpu_usage_percent), use.stand_in && h("span", { class: "soft" }, " stand-in")),
  ];
}

function pager({ total, offset }) {
  const go = (to) => () => (location.hash = link({ offset: String(to) }));
  return h("nav", { class: "pager", "aria-label": "Pages" },
    `${offset + 1}–${Math.min(offset + PAGE, total)} of ${total}`,
    h("button", { type: "button", disabled: offset === 0, onclick: go(Math.max(0, offset - PAGE)) }, "Newer"),
    h("button", { type: "button", disabled: offset + PAGE >= total, onclick: go(offset + PAGE) }, "Older"));
}

// --- the nodes ----------------------------------------------------------------------------------------------

async function nodes() {
  const { nodes: all } = await ask("/v1/nodes");
  const silent = all.filter((node) => node.silent).length;
  return [
    h("div", { class: "title" }, h("h1", {}, "Nodes"),
      h("span", { class: "soft" }, `${all.length} in all${silent ? `, of ${silent} no news` : ""}`)),
    all.length
      ? h("div", { class: "nodes" }, ...all.map(nodeCard))
      : h("p", { class: "panel nothing" }, "No agent has reported yet, and Slurm has told of no node."),
  ];
}

function nodeCard(node) {
  const memory = node.memory_mb == null ? null : node.memory_mb * 2 ** 20;
  const used = node.memory_usage_bytes;
  return h("section", { class: "panel node", key: `${node.cluster}/${node.node}`, "aria-label": node.node },
    h("header", {}, h("h2", {}, node.node), 
      node.state && state(node.state.replaceAll("+", ", "), node.reason)),
    meter("CPU", node.cpu_usage_percent, 100, percent(node.cpu_usage_percent)),
    node.cpus != null && meter("allocated", node.cpus_allocated, node.cpus, `${node.cpus_allocated} of ${node.cpus} CPUs`, "allocated"),
    meter("memory", used, memory, used == null ? "–" : memory == null ? bytes(used) : `${bytes(used)} / ${bytes(memory)}`),
    h("p", { class: "jobs" }, node.jobs.length ? "runs " : "no job now; ", ...node.jobs.slice(0, 8).flatMap((id) => [jobLink(id), " "]),
      h("a", { href: `#/?node=${encodeURIComponent(node.node)}` }, node.jobs.length > 8 ? `and ${node.jobs.length - 8} more` : "all it had")),
    node.silent && h("p", { class: "note" }, `No news since ${clock(node.seen_at)}: the agent does not report.`),
    node.silent === null && h("p", { class: "note" }, "No agent has reported from here."),
    ...node.unread.slice(0, 3).map((one) => h("p", { class: "note" }, `Not read: ${one.what} – ${one.why}`)));
}

function meter(name, value, most, text, kind = "") {
  const part = value == null || !most ? 0 : Math.max(0, Math.min(1, value / most));
  const full = kind === "" && part > 0.9 ? "full" : "";
  return h("div", { class: `meter ${kind} ${full}`, role: "img", "aria-label": `${name}: ${text}` },
    h("span", { "aria-hidden": "true" }, name),
    h("span", { class: most ? "track" : "" }, most && h("svg:svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
      h("svg:rect", { width: (100 * part).toFixed(1), height: 8 }))),
    h("span", { "aria-hidden": "true" }, text));
}

// --- one job ------------------------------------------------------------------------------------------------

async function job({ argument, query }) {
  const run = query.get("run");
  const path = `/v1/jobs/${encodeURIComponent(argument)}`;
  const [one, series, told] = await Promise.all([
    ask(path, { run }), ask(`${path}/metrics`, { run, points: 300 }), ask(`${path}/events`),
  ]);
  return [
    h("div", { class: "title" }, h("h1", {}, `Job ${one.job_id}`), state(one.state), h("span", { class: "soft" }, jobName(one)),
      one.finished_at && !one.settled && h("span", { class: "soft" }, "not confirmed by slurmdbd yet"),
      one.usage?.stand_in && h("span", { class: "state warn" }, "GPU values are of a stand-in")),
    facts(one),
    h("div", { class: "charts" }, ...charts(one, series)),
    h("div", { class: "columns" }, steps(series), events(told.events), one.runs.length > 1 && runs(one)),
  ];
}

function facts(one) {
  const fact = (name, value, wide = "") =>
    value !== "" && value != null && value !== false && h("div", { class: wide }, h("dt", {}, name), h("dd", {}, value));
  const memory = one.memory_allocation_mb;
  const gpus = one.gpu_allocation ? `${one.gpu_allocation}${one.gpu_vendor ? ` ${one.gpu_vendor}` : ""}` : null;
  const ended = one.exit_code == null ? null : one.signal ? `${one.exit_code}, signal ${one.signal}` : String(one.exit_code);
  return h("dl", { class: "panel facts" },
    fact("User", one.user), fact("Account", one.account), fact("Partition", one.partition), fact("Cluster", one.cluster),
    fact("CPUs", one.cpu_allocation), fact("Memory", memory == null ? null : bytes(memory * 2 ** 20)), fact("GPUs", gpus),
    fact("Run time", one.runtime_seconds == null ? null : duration(one.runtime_seconds)),
    fact("Started", one.started_at && clock(one.started_at)), fact("Ended", one.finished_at && clock(one.finished_at)),
    fact("Exit code", ended), fact("Waits for", one.reason),
    fact("Peak memory", one.peak_memory_bytes == null ? null : bytes(one.peak_memory_bytes)),
    fact("CPU time", one.cpu_seconds == null ? null : duration(one.cpu_seconds)),
    fact("Nodes", one.node_list.join(", "), "wide"), fact("Cgroup", one.cgroup_path, "wide"),
    fact("Not read", one.unread.join("; "), "wide"));
}

function charts(one, series) {
  const lines = (value) => series.nodes
    .map((node) => ({ name: node.node, points: node.samples.map((sample) => [Date.parse(sample.timestamp), value(sample)]) }))
    .filter((line) => line.points.some(([, y]) => y != null));
  const share = one.memory_allocation_mb && one.node_list.length ? (one.memory_allocation_mb * 2 ** 20) / one.node_list.length : null;
  const made = [
    chart("CPU", lines((sample) => sample.cpu_usage_percent), { most: 100, format: percent }),
    chart("Memory", lines((sample) => sample.memory_usage_bytes), { format: bytes, limit: share, binary: true }),
  ];
  const gpus = gpuLines(series);
  if (gpus.length) made.push(chart("GPU", gpus, { most: 100, format: percent }));
  return made;
}

function gpuLines(series) {
  const found = new Map();
  for (const node of series.nodes) {
    for (const sample of node.samples) {
      for (const gpu of sample.gpus) {
        const name = `${node.node} ${gpu.gpu_vendor} ${gpu.gpu_id}${gpu.stand_in ? " (stand-in)" : ""}`;
        if (!found.has(name)) found.set(name, []);
        found.get(name).push([Date.parse(sample.timestamp), gpu.utilization_percent]);
      }
    }
  }
  return [...found].map(([name, points]) => ({ name, points }));
}

function steps(series) {
  const rows = series.nodes.flatMap((node) => (node.samples.at(-1)?.steps ?? []).map((step) => ({ node: node.node, ...step })));
  if (!rows.length) return null;
  return h("section", { class: "panel scroll" }, h("h2", {}, "Steps, as last read"),
    h("table", {}, h("thead", {}, h("tr", {}, ...["Step", "Node", "CPU time", "Memory"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, h("td", {}, row.name), h("td", {}, row.node),
        h("td", {}, row.cpu_seconds == null ? "–" : duration(row.cpu_seconds)),
        h("td", {}, row.memory_bytes == null ? "–" : bytes(row.memory_bytes)))))));
}

function events(all) {
  return h("section", { class: "panel scroll" }, h("h2", {}, "Events"),
    h("table", {}, h("thead", {}, h("tr", {}, ...["When", "What", "Told by", "Run"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, ...all.map((event) => h("tr", { key: event.key }, h("td", {}, clock(event.timestamp)),
        h("td", {}, event.kind, event.body.final_state && h("span", { class: "soft" }, ` ${event.body.final_state.replaceAll("_", " ")}`)),
        h("td", {}, event.source), h("td", {}, String(event.run)))))));
}

function runs(one) {
  return h("section", { class: "panel scroll" }, h("h2", {}, "Runs"),
    h("table", {}, h("thead", {}, h("tr", {}, ...["Run", "State", "Started", "Ended"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, ...one.runs.map((run) => h("tr", {},
        h("td", {}, h("a", { href: `#/job/${one.job_id}?run=${run.run}`, "aria-current": run.run === one.run ? "true" : null }, String(run.run))),
        h("td", {}, state(run.state)), h("td", {}, run.started_at ? clock(run.started_at) : "–"),
        h("td", {}, run.finished_at ? clock(run.finished_at) : "–"))))));
}

// --- signing in ---------------------------------------------------------------------------------------------

function signIn(refused = "") {
  header.hidden = true;
  trouble.hidden = true;
  const submit = async (event) => {
    event.preventDefault();
    const token = new FormData(event.target).get("token");
    try {
      const answer = await fetch("/session", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }),
      });
      if (answer.ok) return void show();
      signIn((await answer.json()).error.message);
    } catch {
      signIn("The service does not answer. Is it running?");
    }
  };
  morph(main, [
    h("section", { class: "panel sign-in" }, h("h1", {}, "Slurm jobs"),
      h("p", { class: "soft" }, "Sign in with a token of the role reader. Whoever runs this service makes one: ",
        h("code", {}, "slurm-observability token create --role reader")),
      h("form", { onsubmit: submit },
        h("label", {}, "Token", h("input", { type: "password", name: "token", required: true, autocomplete: "current-password", "aria-describedby": "refused" })),
        h("p", { class: "refused", id: "refused", role: "alert" }, refused),
        h("button", { type: "submit", class: "main" }, "Sign in"))),
  ]);
  document.title = "Sign in – Slurm jobs";
}

document.querySelector("#sign-out").addEventListener("click", async () => {
  await fetch("/session", { method: "DELETE" }).catch(() => null);
  signIn();
});

// --- showing ------------------------------------------------------------------------------------------------

const VIEWS = { queue, nodes, job };
const TITLES = { queue: "Queue", nodes: "Nodes" };

/** Ask and show, then again after a while; an answer that comes after the reader went elsewhere is dropped. */
async function show() {
  clearTimeout(timer);
  const mine = ++turn;
  const where = place();
  try {
    const view = VIEWS[where.view];
    const [health, content] = await Promise.all([ask("/v1/health"), view ? view(where) : [h("p", { class: "panel nothing" }, "There is no such page. ", h("a", { href: "#/" }, "To the queue"))]]);
    if (mine !== turn) return;
    header.hidden = false;
    say(health.scheduler.ok === false ? `Slurm cannot be asked, so states may be late: ${health.scheduler.message}` : "");
    morph(main, content);
    shownAt = new Date();
    document.title = `${TITLES[where.view] ?? `Job ${where.argument}`} – Slurm jobs`;
    for (const one of document.querySelectorAll("header nav a")) {
      one.dataset.view === where.view ? one.setAttribute("aria-current", "page") : one.removeAttribute("aria-current");
    }
    freshness.textContent = `as of ${shownAt.toLocaleTimeString()}`;
  } catch (error) {
    if (mine !== turn) return;
    if (error instanceof SignedOut) return void signIn();
    // fetch's own error says nothing to a reader.
    const said = error instanceof TypeError ? "The service does not answer" : error.message;
    const old = shownAt ? ` What you see was true at ${shownAt.toLocaleTimeString()}.` : "";
    say(`${said}.${old} Trying again.`);
    header.hidden = false;
  }
  timer = setTimeout(() => (document.hidden ? null : show()), POLL_MS);
}

/** Say what is wrong above the page; a reader's screen reader says it once. */
function say(text) {
  if (trouble.textContent !== text) trouble.textContent = text;
  trouble.hidden = !text;
}

addEventListener("hashchange", () => {
  morph(main, [h("p", { class: "nothing" }, "Loading …")]);
  main.focus();
  scrollTo(0, 0);
  show();
});
document.addEventListener("visibilitychange", () => document.hidden || show());
show();
