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
  mic: "M12 3a3 3 0 0 0-3 3v6a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3zM5.5 11.500a6.5 6.5 0 0 0 13 0M12 18v3M8.5 21h7",
  mic_off:
    "M4 4l16 16M9 9.500V12a3 3 0 0 0 4.6 2.500M15 11V6a3 3 0 0 0-5.7-1.300M5.5 11.500a6.5 6.5 0 0 0 10.3 5.300M18.5 11.500a6.5 6.5 0 0 1-.4 2.200M12 18v3M8.5 21h7",
  leave: "M9.5 4H6a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h3.500M15 8l4 4-4 4M19 12H9.5",
  share: "M4 6.500A1.5 1.5 0 0 1 5.5 5h13A1.5 1.5 0 0 1 20 6.500v8a1.5 1.5 0 0 1-1.5 1.500h-13A1.5 1.5 0 0 1 4 14.500zM8.5 20h7M12 13V8M9.8 10.2 12 8l2.2 2.2",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.800v4.400M9 14.800v4.4",
  sound: "M4 9.500v5h3.500L12 18.500v-13L7.5 9.500zM15.5 9a4 4 0 0 1 0 6M18 6.500a7.5 7.5 0 0 1 0 11",
  sound_off: "M4 9.500v5h3.500L12 18.500v-13L7.5 9.500zM16 9.500l5 5M21 9.500l-5 5",
  desktop: "M4 5.500A1.5 1.5 0 0 1 5.5 4h13A1.5 1.5 0 0 1 20 5.500v9a1.5 1.5 0 0 1-1.5 1.500h-13A1.5 1.5 0 0 1 4 14.500zM9 20h6M12 16v4",
  listen: "M4 15v-2.500a8 8 0 0 1 16 0V15M4 15.500A1.5 1.5 0 0 1 5.5 14H7v6H5.500A1.5 1.5 0 0 1 4 18.500zM20 15.500a1.5 1.5 0 0 0-1.5-1.500H17v6h1.500a1.5 1.5 0 0 0 1.5-1.500z",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7.500V12l3 2",
  link_off: "M4 4l16 16M9 15l-1.8 1.800a3.5 3.5 0 0 1-5-5L5 9M15 9l1.8-1.800a3.5 3.5 0 0 1 5 5L19 15",
  door: "M5 21h14M7 21V4.500A1.5 1.5 0 0 1 8.5 3h7A1.5 1.5 0 0 1 17 4.500V21M13.5 12h.1",
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
    ["logo-bell", "M16 6.200a1.7 1.7 0 0 1 1.7 1.700v.6c2.9.8 4.7 3.3 4.7 6.400v3.400l1.9 2.900c.5.8 0 1.8-1 1.800H8.700c-1 0-1.5-1-1-1.800l1.9-2.900v-3.400c0-3.1 1.8-5.6 4.7-6.400v-.6A1.7 1.7 0 0 1 16 6.200z"],
    ["logo-clapper", "M13.5 24.300h5a2.5 2.5 0 0 1-5 0z"],
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
