// Elements, and how the page changes into what it should be without losing the reader's place.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element, `svg:NAME` one of SVG: attributes, on… listeners, `key`; children that are null or false are left out. */
export function h(name, attributes, ...children) {
  const made = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (key === "key") made.key = value;
    else if (key.startsWith("on")) made[key] = value;
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child != null && child !== false && child !== "").map((child) => child instanceof Node ? child : String(child)));
  return made;
}

/** Make an element's children like these; what is the same stays, with focus and what is typed into it. */
export function morph(parent, children) {
  const wanted = children.filter(Boolean);
  const keyed = new Map([...parent.childNodes].filter((old) => old.key !== undefined).map((old) => [old.key, old]));
  wanted.forEach((child, place) => {
    let old = parent.childNodes[place];
    if (child.key !== undefined && keyed.has(child.key) && keyed.get(child.key) !== old) {
      parent.insertBefore(keyed.get(child.key), old ?? null);
      old = parent.childNodes[place];
    }
    if (!old) parent.append(child);
    else if (old.nodeName !== child.nodeName || old.key !== child.key) old.replaceWith(child);
    else if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== child.data) old.data = child.data;
    } else {
      like(old, child);
      morph(old, [...child.childNodes]);
    }
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

function like(old, wanted) {
  for (const { name } of [...old.attributes]) if (!wanted.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of wanted.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const listener of ["onclick", "onsubmit"]) old[listener] = wanted[listener];
}
