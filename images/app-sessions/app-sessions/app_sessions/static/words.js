// States, times and what a job asks for, as people read them.

const STATES = {
  creating: ["starting", "wait"], pending: ["in the queue", "wait"], running: ["running", "run"],
  stopped: ["stopped", "off"], error: ["failed", "bad"],
};

/** A session's state in a word, and how it looks. */
export function state(session) {
  if (session.ending && session.status !== "creating") return ["ending", "wait"];
  if (session.status === "pending" && session.node) return ["starting", "wait"];
  return STATES[session.status];
}

/** What goes on, in a sentence; empty where the state says it all. */
export function progress(session) {
  if (session.ending) return session.status === "creating" ? "Its former job is being ended." : "Its job is being ended.";
  if (session.message) return sentence(session.message);
  if (session.status === "creating") return "Slurm is asked for a job.";
  if (session.status === "pending") {
    if (session.node) return `Job ${session.job_id} runs on ${session.node}; its display starts.`;
    return session.reason ? `Job ${session.job_id} waits in the queue: ${session.reason}.` : `Job ${session.job_id} waits in the queue.`;
  }
  return "";
}

export function sentence(text) {
  if (!text) return "";
  const begun = text[0].toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** A moment by the reader's clock; the day only if it is another one. */
export function clock(text) {
  const at = new Date(text);
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString()} ${time}`;
}

/** Slurm's time limit: 02:00:00 is 2 h. */
export function limit(text) {
  const match = /^(\d+):(\d\d):(\d\d)$/.exec(text);
  if (!match) return text;
  const [hours, minutes] = [Number(match[1]), Number(match[2])];
  return [hours && `${hours} h`, minutes && `${minutes} min`].filter(Boolean).join(" ");
}
