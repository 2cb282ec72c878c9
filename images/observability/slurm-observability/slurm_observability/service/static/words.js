// Numbers and states as people read them.

/** In the order in which they are shown. */
export const STATES = [
  "running", "pending", "suspended", "completing", "completed", "failed", "out_of_memory", "timeout", "node_fail",
  "cancelled", "preempted", "requeued", "boot_fail", "deadline",
];
const CLASSES = {
  running: "run", completing: "run", completed: "good", pending: "wait", suspended: "warn", cancelled: "wait",
  requeued: "warn", preempted: "warn", idle: "good", mixed: "run", allocated: "run",
};

/** How a state of a job or node looks. */
export function stateClass(word) {
  if (/down|drain|fail|not_responding|unknown/.test(word)) return "bad";
  return CLASSES[word] ?? CLASSES[word.split(/[ ,]/)[0]] ?? "bad";
}

export function percent(value) {
  if (value == null) return "–";
  return `${value && value < 9.95 ? value.toFixed(1) : Math.round(value)} %`;
}

export function bytes(value) {
  let size = value;
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (size < 1024 || unit === "TiB") {
      const digits = unit === "B" || size >= 100 || Number.isInteger(size) ? 0 : 1;
      return `${size.toFixed(digits)} ${unit}`;
    }
    size /= 1024;
  }
  return "";
}

/** Seconds as Slurm writes them: 1-02:03:04, 2:03:04, 3:04; under a minute 5.2 s. */
export function duration(seconds) {
  if (seconds < 60) return `${seconds < 10 && seconds % 1 ? seconds.toFixed(1) : Math.floor(seconds)} s`;
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days}-${two(hours)}:${two(minutes)}:${two(whole % 60)}`;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** A moment by the reader's clock; the day only if it is another one. */
export function clock(text) {
  const at = new Date(text);
  const time = at.toLocaleTimeString();
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString()} ${time}`;
}
