// Small graphs for tables, and charts of a job's series; SVG.
import { h } from "./dom.js";

const [WIDTH, HEIGHT] = [640, 190];
const BOX = { left: 62, right: 8, top: 8, bottom: 22 };
/** A gap this many times as long as usual breaks a line: nothing was read there. */
const GAP = 4;
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];

/** A graph of 96 by 22 for a table's cell; the last value stands beside it. */
export function spark(points, field, most, name) {
  const read = points.filter((point) => point[field] != null);
  const top = most || Math.max(...read.map((point) => point[field]), 1);
  const [width, height] = [96, 22];
  const last = points.length ? Date.parse(points.at(-1).timestamp) : 0;
  const x = (point) => width - 2 - ((last - Date.parse(point.timestamp)) / (15 * 60000)) * (width - 4);
  const y = (point) => height - 2 - Math.min(1, point[field] / top) * (height - 4);
  const at = read.map((point) => `${x(point).toFixed(1)},${y(point).toFixed(1)}`);
  const end = read.at(-1);
  return h("svg:svg", { class: "spark", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name}, the last 15 minutes` },
    h("svg:line", { class: "grid", x1: 0, x2: width, y1: height - 1, y2: height - 1 }),
    at.length > 1 && h("svg:path", { class: "area", d: `M${x(read[0]).toFixed(1)},${height - 1} L${at.join(" ")} L${x(end).toFixed(1)},${height - 1}Z` }),
    at.length > 1 && h("svg:polyline", { class: "series", points: at.join(" ") }),
    end && h("svg:circle", { class: "dot", cx: x(end).toFixed(1), cy: y(end).toFixed(1), r: 2 }));
}

/** A chart of lines `{name, points: [[ms, value]]}`. */
export function chart(title, lines, { most = null, limit = null, format, binary = false }) {
  const points = lines.flatMap((line) => line.points.filter(([, value]) => value != null));
  if (!points.length) {
    return h("section", { class: "panel chart" }, h("header", {}, h("h2", {}, title)), h("p", { class: "nothing" }, "Nothing has been read yet."));
  }
  const [from, to] = [Math.min(...points.map(([at]) => at)), Math.max(...points.map(([at]) => at))];
  const span = Math.max(to - from, 1000);
  const highest = Math.max(...points.map(([, value]) => value));
  // A limit far above what is used would press the line flat.
  const shownLimit = limit && limit < 4 * highest ? limit : null;
  const steps = ticksUpTo(most ?? Math.max(highest, shownLimit ?? 0, 1), binary);
  const top = steps.at(-1);
  const x = (at) => BOX.left + ((at - from) / span) * (WIDTH - BOX.left - BOX.right);
  const y = (value) => HEIGHT - BOX.bottom - (Math.min(value, top) / top) * (HEIGHT - BOX.top - BOX.bottom);
  const said = lines.map((line) => `${line.name} ${format(lastOf(line))}`).join(", ");
  return h("section", { class: "panel chart" },
    h("header", {}, h("h2", {}, title),
      h("ul", { class: "legend" }, ...lines.slice(0, 12).map((line, place) => h("li", { class: `s${place % 6}` }, `${line.name} ${format(lastOf(line))}`)),
        lines.length > 12 && h("li", {}, `and ${lines.length - 12} more`),
        limit && h("li", { class: "limit" }, `allocated ${format(limit)}`))),
    h("svg:svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} over time; last: ${said}` },
      ...steps.flatMap((value) => [
        h("svg:line", { class: "grid", x1: BOX.left, x2: WIDTH - BOX.right, y1: y(value), y2: y(value) }),
        h("svg:text", { x: BOX.left - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)),
      ]),
      ...timesBetween(from, from + span).map((at) => h("svg:text", { x: x(at), y: HEIGHT - 6, "text-anchor": "middle" }, short(at, span))),
      shownLimit && h("svg:line", { class: "limit", x1: BOX.left, x2: WIDTH - BOX.right, y1: y(shownLimit), y2: y(shownLimit) }),
      ...lines.flatMap((line, place) => pieces(line.points).map((piece) => piece.length > 1
        ? h("svg:polyline", { class: `series s${place % 6}`, points: piece.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ") })
        : h("svg:circle", { class: `dot s${place % 6}`, cx: x(piece[0][0]), cy: y(piece[0][1]), r: 2 })))));
}

function lastOf(line) {
  return line.points.findLast(([, value]) => value != null)?.[1];
}

/** Four or five round values from 0 to at least the highest. */
function ticksUpTo(highest, binary) {
  const rough = highest / 4;
  const unit = binary ? 2 ** Math.floor(Math.log2(rough)) : 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * unit).find((one) => one * 4 >= highest * 0.999);
  return [0, 1, 2, 3, 4].map((place) => place * step);
}

function timesBetween(from, to) {
  const seconds = (to - from) / 1000;
  const step = (TICKS.find((one) => seconds / one <= 6) ?? seconds) * 1000;
  const shift = new Date(from).getTimezoneOffset() * 60000;
  const found = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at <= to; at += step) {
    // Not where half of the text would be outside.
    if (at - from > (to - from) * 0.02 && to - at > (to - from) * 0.03) found.push(at);
  }
  return found;
}

function short(at, span) {
  const date = new Date(at);
  if (span > 2 * 86400000) return date.toLocaleDateString([], { month: "short", day: "numeric" });
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: span < 300000 ? "2-digit" : undefined, hour12: false });
}

/** A line in pieces, broken where nothing was read for a while. */
function pieces(points) {
  const read = points.filter(([, value]) => value != null);
  const gaps = read.slice(1).map(([at], place) => at - read[place][0]).sort((a, b) => a - b);
  const usual = gaps[Math.floor(gaps.length / 2)] ?? 0;
  const found = [];
  read.forEach((point, place) => {
    if (place === 0 || point[0] - read[place - 1][0] > GAP * usual) found.push([]);
    found.at(-1).push(point);
  });
  return found;
}
