// Building blocks of the page: elements, icons, and nothing that knows about calls.

type Attributes = Record<string, string | number | boolean | ((event: Event) => void) | undefined>;
type Child = Node | string | null | undefined;

/** `onclick`-like attributes take functions; `true` makes an empty attribute, `false` and undefined none. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
  return element;
}

/** Outlines on a 24 x 24 grid, always beside or inside a control that has its name in words. */
const ICONS = {
  mic: "M12 3a3 3 0 0 0-3 3v6a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3zM5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v3M8.5 21h7",
  mic_off:
    "M4 4l16 16M9 9.5V12a3 3 0 0 0 4.6 2.5M15 11V6a3 3 0 0 0-5.7-1.3M5.5 11.5a6.5 6.5 0 0 0 10.3 5.3M18.5 11.5a6.5 6.5 0 0 1-.4 2.2M12 18v3M8.5 21h7",
  leave: "M9.5 4H6a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h3.5M15 8l4 4-4 4M19 12H9.5",
  share: "M4 6.5A1.5 1.5 0 0 1 5.5 5h13A1.5 1.5 0 0 1 20 6.5v8a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 14.5zM8.5 20h7M12 13V8M9.8 10.2 12 8l2.2 2.2",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.8v4.4M9 14.8v4.4",
  sound: "M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM15.5 9a4 4 0 0 1 0 6M18 6.5a7.5 7.5 0 0 1 0 11",
  sound_off: "M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM16 9.5l5 5M21 9.5l-5 5",
  desktop: "M4 5.5A1.5 1.5 0 0 1 5.5 4h13A1.5 1.5 0 0 1 20 5.5v9a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 14.5zM9 20h6M12 16v4",
  listen: "M4 15v-2.5a8 8 0 0 1 16 0V15M4 15.5A1.5 1.5 0 0 1 5.5 14H7v6H5.5A1.5 1.5 0 0 1 4 18.5zM20 15.5a1.5 1.5 0 0 0-1.5-1.5H17v6h1.5a1.5 1.5 0 0 0 1.5-1.5z",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7.5V12l3 2",
  link_off: "M4 4l16 16M9 15l-1.8 1.8a3.5 3.5 0 0 1-5-5L5 9M15 9l1.8-1.8a3.5 3.5 0 0 1 5 5L19 15",
  door: "M5 21h14M7 21V4.5A1.5 1.5 0 0 1 8.5 3h7A1.5 1.5 0 0 1 17 4.5V21M13.5 12h.1",
  remove: "M6 6l12 12M18 6 6 18",
} as const;

export type IconName = keyof typeof ICONS;

export function icon(name: IconName): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

export function setIcon(holder: Element, name: IconName): void {
  holder.querySelector("svg")?.replaceWith(icon(name));
}

/** Writes only what changed, so that a screen reader is not told the same again. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** A horizontal meter; `setMeter` moves it. It says nothing to screen readers: the state beside it does, in words. */
export function meter(): HTMLElement {
  return h("div", { class: "meter", "aria-hidden": "true" }, h("span"));
}

export function setMeter(element: HTMLElement, position: number): void {
  element.style.setProperty("--level", position.toFixed(3));
}

export function logo(): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 32 32");
  svg.setAttribute("class", "logo");
  svg.setAttribute("aria-hidden", "true");
  const shapes: [string, string][] = [
    ["logo-ground", "M9 0h14a9 9 0 0 1 9 9v14a9 9 0 0 1-9 9H9a9 9 0 0 1-9-9V9a9 9 0 0 1 9-9z"],
    ["logo-bell", "M16 6.2a1.7 1.7 0 0 1 1.7 1.7v.6c2.9.8 4.7 3.3 4.7 6.4v3.4l1.9 2.9c.5.8 0 1.8-1 1.8H8.7c-1 0-1.5-1-1-1.8l1.9-2.9v-3.4c0-3.1 1.8-5.6 4.7-6.4v-.6A1.7 1.7 0 0 1 16 6.2z"],
    ["logo-clapper", "M13.5 24.3h5a2.5 2.5 0 0 1-5 0z"],
  ];
  for (const [name, d] of shapes) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

const SVG = "http://www.w3.org/2000/svg";
