// SPDX-License-Identifier: GPL-2.0-or-later
// Draws the lanes of the runs in #data.  Times are microseconds from the
// source's first stop request.  Texts are always set as text, never as markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const ROW = 22, GUTTER = 150, RIGHT = 12, TOP = 22;
  const NARROWEST = 0.5;                        // of a view, microseconds
  const panels = document.getElementById("panels");
  const tip = document.getElementById("tip");
  const changes = document.getElementById("changes");
  const selects = ["first", "second"].map(id => document.getElementById(id));
  const view = { from: 0, to: 1 };
  let shown = [];

  const stateName = i => data.states[i] ?? "unknown";
  const short = { RUNNING_P2P: "RUN_P2P", PRE_COPY_P2P: "PRE_P2P" };
  const title = run => `${run.tree}, ${run.scenario}, ${run.name}`;

  function time(us) {
    const digits = Number.isInteger(us) ? 3 : 6;
    return `${(us / 1000).toFixed(digits)} ms`;
  }

  function element(parent, name, attributes = {}, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes))
      made.setAttribute(key, value);
    if (text !== undefined)
      made.textContent = text;
    parent.append(made);
    return made;
  }

  function html(parent, name, text) {
    const made = document.createElement(name);
    if (text !== undefined)
      made.textContent = text;
    parent.append(made);
    return made;
  }

  // The stretches of a lane, in the order of time.
  function stretches(lane) {
    const found = [];
    for (let i = 0; i < lane.states.length; i += 3) {
      const [from, to, state] = lane.states.slice(i, i + 3);
      found.push({ from, to, kind: `s${state}`, name: stateName(state) });
    }
    for (let i = 0; i < lane.arcs.length; i += 5) {
      const [from, to, a, b, c] = lane.arcs.slice(i, i + 5);
      let name = `${stateName(a)} → ${stateName(b)}`;
      if (b !== c)
        name += c < 0 ? ", outcome not seen" : `, came to ${stateName(c)}`;
      found.push({ from, to, kind: b === c ? "arc" : "arc lost", name });
    }
    return found.sort((x, y) => x.from - y.from);
  }

  // The rows of a run, each with a label, a side and its parts.
  function rows(run) {
    const found = [];
    for (const side of ["source", "destination"]) {
      const lanes = run.lanes.filter(lane => lane.side === side);
      if (lanes.length)
        found.push({ head: true, label: side, side });
      for (const lane of lanes)
        found.push({ label: lane.device, side, parts: stretches(lane) });
    }
    const extra = (label, list, kind) => {
      if (list.length)
        found.push({ label, parts: list.map(([name, side, from, to]) =>
          ({ from, to, kind, name, side })) });
    };
    extra("phases", run.phases, "phase");
    extra("critical path", run.path, "path");
    return found;
  }

  function whole(run) {
    const times = run.lanes.flatMap(lane =>
      stretches(lane).flatMap(part => [part.from, part.to]));
    for (const [, at] of run.marks)
      times.push(at);
    return times.reduce(([low, high], at) =>
      [Math.min(low, at), Math.max(high, at)], [Infinity, -Infinity]);
  }

  function look(kind) {
    const ranges = shown.map(run =>
      kind === "blackout" && run.blackout !== null
        ? [0, run.blackout] : whole(run));
    const from = Math.min(...ranges.map(range => range[0]));
    const to = Math.max(...ranges.map(range => range[1]));
    if (!(to > from))
      return;
    // The STOP that the series moves comes after the blackout.
    const known = shown.some(run => run.blackout !== null);
    const right = kind === "blackout" && known ? 0.45 : 0.02;
    move(from - (to - from) * 0.05, to + (to - from) * right);
  }

  function move(from, to) {
    const middle = (from + to) / 2;
    const half = Math.max((to - from) / 2, NARROWEST / 2);
    view.from = middle - half;
    view.to = middle + half;
    draw();
  }

  function zoom(factor, at = (view.from + view.to) / 2) {
    move(at - (at - view.from) * factor, at + (view.to - at) * factor);
  }

  function step(width, span) {
    const rough = span / Math.max(width / 90, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map(n => n * power).find(n => n >= rough);
  }

  function draw() {
    for (const panel of panels.querySelectorAll(".panel"))
      drawPanel(panel, shown[Number(panel.dataset.place)]);
  }

  function drawPanel(panel, run) {
    const width = Math.max(panel.clientWidth, 320);
    const inner = width - GUTTER - RIGHT;
    const list = rows(run);
    const height = TOP + list.length * ROW + 4;
    const scale = inner / (view.to - view.from);
    const x = us => GUTTER + (us - view.from) * scale;
    panel.replaceChildren();
    panel.setAttribute("height", height);
    const plot = element(panel, "svg", {
      x: GUTTER, width: inner, height,
      viewBox: `${GUTTER} 0 ${inner} ${height}`,
    });
    if (run.blackout !== null)
      element(plot, "rect", {
        class: "shade", x: x(0), width: run.blackout * scale, y: TOP - 4,
        height: height - TOP + 4,
      });
    const tick = step(inner, view.to - view.from);
    const digits = Math.max(0, Math.min(6, -Math.floor(
      Math.log10(tick / 1000))));
    for (let n = Math.ceil(view.from / tick); n * tick <= view.to; n++) {
      const at = x(n * tick);
      element(plot, "line", {
        class: n ? "grid" : "zero", x1: at, x2: at, y1: TOP - 4, y2: height,
      });
      element(plot, "text", {
        class: "dim", x: at, y: TOP - 8, "text-anchor": "middle",
      }, `${(n * tick / 1000).toFixed(digits)}${n ? "" : " ms"}`);
    }
    list.forEach((row, n) => drawRow(panel, plot, run, row, TOP + n * ROW, x));
  }

  function drawRow(panel, plot, run, row, top, x) {
    const label = element(panel, "text", {
      x: row.side && !row.head ? 12 : 0, y: top + 15,
      class: row.head ? "dim" : "",
    }, clip(row.label, 20));
    if (row.label.length > 20)
      label.dataset.tip = row.label;
    if (row.head)
      drawMarks(plot, run, row.side, top, x);
    for (const part of row.parts ?? []) {
      if (part.to < view.from || part.from > view.to)
        continue;
      const left = Math.max(x(part.from), x(view.from) - 2);
      const right = Math.min(x(part.to), x(view.to) + 2);
      const group = element(plot, "g", {
        class: part.kind, transform: `translate(0 ${top})`,
      });
      const where = { x: left, width: Math.max(right - left, 0.7) };
      const rect = element(group, "rect", { class: "bar", ...where });
      const side = part.side ?? row.side;
      rect.dataset.tip = [
        part.name,
        `${part.side || !row.side ? "" : `${row.label}, `}${side}`,
        `${time(part.from)} to ${time(part.to)}`,
        `lasts ${time(part.to - part.from)}`,
      ].join("\n");
      if (part.kind.startsWith("s"))
        element(group, "rect", { class: "pattern", ...where });
      write(group, part, left, right);
    }
  }

  // Writes a name into its bar if it fits, in full or abbreviated.
  function write(group, part, left, right) {
    const room = (right - left - 6) / 6.6;
    const target = part.name.split(" → ").pop();
    const names = part.kind === "arc"
      ? [part.name, `→ ${target}`, `→ ${short[target] ?? target}`, "→"]
      : [part.name, short[part.name] ?? part.name];
    const fits = names.find(name => name.length <= room);
    if (fits)
      element(group, "text", {
        // The bar is low where the device may do nothing.
        class: "label", x: (left + right) / 2,
        y: /^s(-1|[0134])$/.test(part.kind) ? 18 : 15, "text-anchor": "middle",
      }, fits);
  }

  function drawMarks(plot, run, side, top, x) {
    let free = -Infinity;
    const bottom = top + ROW *
      (1 + run.lanes.filter(lane => lane.side === side).length);
    for (const [where, at, text] of run.marks) {
      if (where !== side || at < view.from || at > view.to)
        continue;
      const line = element(plot, "line", {
        class: "mark", x1: x(at), x2: x(at), y1: top + 4, y2: bottom,
      });
      line.dataset.tip = `${text}\n${side}\n${time(at)}`;
      const words = text.replace(/^[^:]*: /, "");
      if (x(at) > free) {
        element(plot, "text", { class: "dim", x: x(at) + 3, y: top + 14 },
          words).dataset.tip = line.dataset.tip;
        free = x(at) + 10 + words.length * 6.2;
      }
    }
    for (const [where, at, rule] of run.broken) {
      if (where !== side || at < view.from || at > view.to)
        continue;
      element(plot, "path", {
        class: "flag", d: `M${x(at) - 6} ${top + 6}h12l-6 11z`,
      }).dataset.tip = `✘ broken: ${rule}\n${side}\n${time(at)}`;
    }
  }

  const clip = (text, length) =>
    text.length > length ? `${text.slice(0, length - 1)}…` : text;

  function listChanges() {
    const box = changes.querySelector("div");
    box.replaceChildren();
    if (!changes.open)
      return;
    const table = html(box, "table");
    const head = html(html(table, "thead"), "tr");
    const names = ["run", "side", "device", "what", "from", "to", "lasts"];
    for (const name of names)
      html(head, "th", name);
    const body = html(table, "tbody");
    for (const run of shown)
      for (const lane of run.lanes)
        for (const part of stretches(lane)) {
          const row = html(body, "tr");
          for (const text of [title(run), lane.side, lane.device, part.name,
            time(part.from), time(part.to), time(part.to - part.from)])
            html(row, "td", text);
        }
  }

  function show() {
    shown = selects.map(select => data.runs[Number(select.value)])
      .filter(run => run);
    panels.replaceChildren();
    shown.forEach((run, place) => {
      const blackout = run.blackout === null
        ? "no blackout; 0 is the first line of its logs"
        : `blackout ${time(run.blackout)}`;
      const head = html(panels, "h3", `${title(run)}: `);
      head.className = "title";
      html(head, "span", run.verdict).className = `verdict ${run.verdict}`;
      head.append(`, ${blackout}`);
      if (!run.lanes.length) {
        html(panels, "p", "There are no lanes: the logs of this run have no "
          + "times or no device, or they are missing.").className = "note";
        return;
      }
      const panel = element(panels, "svg", {
        class: "panel", tabindex: 0, role: "img", "data-place": place,
        "aria-label": `lanes of ${title(run)}; a table follows`,
      });
      listen(panel);
    });
    shown = shown.map(run => run.lanes.length ? run : {
      ...run, marks: [], phases: [], path: [], broken: [],
    });
    look("blackout");
    listChanges();
  }

  function listen(panel) {
    const at = event => {
      const box = panel.getBoundingClientRect();
      const part = (event.clientX - box.left - GUTTER)
        / (box.width - GUTTER - RIGHT);
      return view.from + part * (view.to - view.from);
    };
    let begin = null, band = null;
    panel.addEventListener("pointerdown", event => {
      if (event.button === 0)
        begin = { us: at(event), x: event.clientX };
    });
    panel.addEventListener("pointermove", event => {
      if (begin === null || Math.abs(event.clientX - begin.x) < 4)
        return;
      if (band === null) {
        panel.setPointerCapture(event.pointerId);
        band = element(panel, "rect", { class: "select", y: 0,
          height: panel.clientHeight });
      }
      const left = panel.getBoundingClientRect().left;
      const [from, to] = [begin.x, event.clientX].sort((a, b) => a - b);
      band.setAttribute("x", from - left);
      band.setAttribute("width", to - from);
    });
    const end = event => {
      const from = begin;
      const dragged = band !== null && event.type === "pointerup";
      band?.remove();
      begin = band = null;
      if (dragged)
        move(...[from.us, at(event)].sort((a, b) => a - b));
    };
    panel.addEventListener("pointerup", end);
    panel.addEventListener("pointercancel", end);
    panel.addEventListener("dblclick", () => look("blackout"));
    panel.addEventListener("wheel", event => {
      if (!event.ctrlKey)
        return;
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, at(event));
    }, { passive: false });
    panel.addEventListener("keydown", event => {
      const act = {
        "+": "in", "=": "in", "-": "out", ArrowLeft: "left",
        ArrowRight: "right", Home: "blackout", End: "whole",
      }[event.key];
      if (!act || event.ctrlKey || event.altKey || event.metaKey)
        return;
      event.preventDefault();
      act_on(act);
    });
  }

  function act_on(act) {
    const span = view.to - view.from;
    switch (act) {
      case "in": return zoom(0.6);
      case "out": return zoom(1 / 0.6);
      case "left": return move(view.from - span / 4, view.to - span / 4);
      case "right": return move(view.from + span / 4, view.to + span / 4);
      default: return look(act);
    }
  }

  // Finds the run of another tree with the same scenario and seed.
  function counterpart(run) {
    return data.runs.findIndex(other => other.tree !== run.tree
      && other.scenario === run.scenario && other.name === run.name
      && other.lanes.length && other.verdict === run.verdict);
  }

  function choose(number) {
    selects[0].value = number;
    selects[1].value = counterpart(data.runs[number]);
    show();
  }

  function begin() {
    html(selects[1], "option", "no other").value = -1;
    data.runs.forEach((run, number) => {
      for (const select of selects)
        html(select, "option", title(run)).value = number;
    });
    for (const select of selects)
      select.addEventListener("change", show);
    for (const button of document.querySelectorAll("[data-view]"))
      button.addEventListener("click", () => act_on(button.dataset.view));
    for (const link of document.querySelectorAll("[data-run]"))
      link.addEventListener("click", () => {
        choose(Number(link.dataset.run));
        document.getElementById("lanes").scrollIntoView();
      });
    document.addEventListener("pointermove", event => {
      const text = event.target.dataset?.tip;
      tip.hidden = !text;
      if (!text)
        return;
      tip.textContent = text;
      const box = tip.getBoundingClientRect();
      const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
      const below = event.clientY + 16;
      tip.style.left = `${Math.max(left, 4)}px`;
      tip.style.top = below + box.height > innerHeight
        ? `${event.clientY - box.height - 10}px` : `${below}px`;
    });
    changes.addEventListener("toggle", listChanges);
    addEventListener("resize", draw);
    addEventListener("beforeprint", draw);
    // Shows first a run that fails, then one that has a counterpart.
    const ranks = [
      run => run.verdict === "fail", run => counterpart(run) >= 0, () => true,
    ];
    for (const rank of ranks) {
      const number = data.runs.findIndex(run => run.lanes.length && rank(run));
      if (number >= 0)
        return choose(number);
    }
    if (data.runs.length)
      choose(0);
  }

  if (panels)
    begin();
})();
