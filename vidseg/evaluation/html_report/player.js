// Steps through the frames of a video with truth and prediction side by side.

const FRAMES_PER_SECOND = 8;
const CALM_FRAMES_PER_SECOND = 2; // for readers who ask for less motion
const CANVAS_WIDTH = 720; // pixels to which small masks are enlarged
const ICONS = {
  back: "M11 3 5 8l6 5z",
  forward: "M5 3l6 5-6 5z",
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
};

function playerPanel(payload, chosen) {
  const { videos, ranking } = payload;
  const panel = element("div", { class: "stack player" });
  const stage = element("div", { class: "stack" });
  const choice = element("select", { id: "player-video", onchange: () => chosen(Number(choice.value)) });
  videos.forEach((video, i) => choice.append(element("option", { value: i }, video.name)));
  const turn = (by) => chosen((Number(choice.value) + by + videos.length) % videos.length);
  const others = videos.length < 2;
  panel.append(
    element("div", { class: "tools" },
      element("label", { for: "player-video" }, "Video"), choice,
      element("button", { type: "button", class: "plain", disabled: others, onclick: () => turn(-1) }, "Previous"),
      element("button", { type: "button", class: "plain", disabled: others, onclick: () => turn(1) }, "Next"),
    ),
    stage,
  );
  let view = null;
  let opened = null;

  return {
    panel,
    open(index) {
      if (index === opened) return;
      view?.stop();
      opened = index;
      choice.value = index;
      const row = ranking.rows.find((each) => each.video === index);
      view = videoView(videos[index], row ? measures(ranking.columns, row.values, ranking.rows) : null);
      stage.replaceChildren(view.element);
      view.show(0);
    },
    get opened() {
      return opened;
    },
    stop: () => view?.stop(),
    key: (event) => view?.key(event),
  };
}

function measures(columns, values, rows) {
  const list = element("dl", { class: "facts" });
  columns.forEach((column, i) => {
    const value = values[i] ?? null;
    const text = typeof value === "string" ? value : formatterOf(rows.map((row) => row.values[i]))(value);
    list.append(element("div", {}, element("dt", {}, column), element("dd", { class: "number" }, text)));
  });
  return list;
}

function videoView(video, facts) {
  const tracks = tracksOf(video);
  const all = [...tracks.truths, ...tracks.predictions];
  const sides = [
    canvasSide("Truth", video, tracks.truths, { light, told: tell }),
    canvasSide("Prediction", video, tracks.predictions, { light, told: tell }),
  ];
  const last = Math.max(video.frames.length - 1, 0);
  const status = element("p", { class: "status" });
  const count = element("output", { class: "number frame-count" });
  const slider = element("input", { type: "range", min: 0, max: last, value: 0, "aria-label": "Frame", oninput: () => show(Number(slider.value)) });
  const play = element("button", { type: "button", class: "icon", "aria-label": "Play", onclick: toggle }, icon(ICONS.play));
  const pictures = video.frames.map(() => null);
  const bars = timeline(video, tracks, { jump, changed: redraw, light, tell });
  let at = 0;
  let lit = null;
  let timer = null;

  function show(position) {
    at = clamp(position, 0, last);
    slider.value = at;
    const frame = video.frames[at];
    if (!frame) return;
    slider.setAttribute("aria-valuetext", `frame ${frame.index}`);
    count.textContent = `frame ${frame.index} · ${at + 1} of ${video.frames.length}`;
    bars.showFrame(frame.index);
    redraw();
    tell("");
  }

  function redraw() {
    if (video.frames.length) for (const side of sides) side.draw(at, pictures[at], lit?.visible ? lit : null);
  }

  function light(track) {
    if (track === lit) return;
    lit = track;
    bars.light(track);
    redraw();
    tell("");
  }

  // The line beneath the pictures: what the pointer is on, else what the frame holds.
  function tell(text) {
    status.textContent = text || (lit ? nameTrack(lit, video.frames[at]) : summary());
  }

  function summary() {
    const frame = video.frames[at];
    if (!frame) return "";
    const states = all.map((track) => [track.side, track.states[frame.index]]);
    const times = (side, state) => states.filter(([a, b]) => a === side && b === state).length;
    const parts = [["truth", "f"], ["truth", "s"], ["truth", "m"], ["prediction", "x"]];
    return parts.map(([side, state]) => `${times(side, state)} ${STATES[state]}`).join(" · ");
  }

  function jump(index) {
    const positions = video.frames.map((frame, i) => [Math.abs(frame.index - index), i]);
    if (!positions.length) return;
    const [distance, position] = positions.reduce((best, each) => (each[0] < best[0] ? each : best));
    show(position);
    if (distance) tell(`Frame ${index} is not in this report; ${video.frames[position].index} is the nearest that is.`);
  }

  function jumpToConfusion(direction) {
    const confused = (frame) => all.some((track) => track.visible && "smx".includes(track.states[frame.index] || "."));
    for (let position = at + direction; position >= 0 && position <= last; position += direction) {
      if (confused(video.frames[position])) return show(position);
    }
    return tell(`No confusion ${direction > 0 ? "after" : "before"} this frame among the tracks shown.`);
  }

  function toggle() {
    if (timer !== null) return stop();
    if (at === last) show(0);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    timer = setInterval(() => (at < last ? show(at + 1) : stop()), 1000 / (calm ? CALM_FRAMES_PER_SECOND : FRAMES_PER_SECOND));
    return label("Pause", ICONS.pause);
  }

  function stop() {
    if (timer !== null) clearInterval(timer);
    timer = null;
    label("Play", ICONS.play);
  }

  function label(text, shape) {
    play.setAttribute("aria-label", text);
    play.replaceChildren(icon(shape));
  }

  const keys = {
    ArrowLeft: () => show(at - 1),
    ArrowRight: () => show(at + 1),
    Home: () => show(0),
    End: () => show(last),
    " ": toggle,
    n: () => jumpToConfusion(1),
    p: () => jumpToConfusion(-1),
  };

  function choose(visible) {
    for (const track of tracks.predictions) track.visible = visible(track);
    bars.refresh();
    redraw();
  }

  video.frames.forEach((frame, i) => {
    if (!frame.image || !frame.image.startsWith("data:image/")) return;
    const picture = new Image();
    picture.addEventListener("load", () => {
      pictures[i] = picture;
      if (i === at) redraw();
    });
    picture.src = frame.image;
  });

  const step = (name, by, shape) => element("button", { type: "button", class: "icon", "aria-label": name, onclick: () => show(at + by) }, icon(shape));
  const word = (text, action) => element("button", { type: "button", class: "plain", onclick: action }, text);
  const controls = element("div", { class: "controls" },
    step("Previous frame", -1, ICONS.back), play, step("Next frame", 1, ICONS.forward), slider, count);
  const shownNote = video.frames.length < video.length ? `${video.frames.length} of ${plural(video.length, "frame")} shown, marked on the axis` : plural(video.length, "frame");
  const content = [
    element("div", { class: "summary" }, element("p", { class: "quiet" }, `${plural(tracks.truths.length, "truth")}, ${plural(tracks.predictions.length, "prediction")}, ${shownNote}.`), facts ?? ""),
    video.frames.length ? element("div", { class: "sides" }, ...sides.map((side) => side.figure)) : element("p", { class: "empty" }, "No frame of this video is in the report."),
    status,
    video.frames.length ? controls : null,
    element("div", { class: "tools" },
      element("div", { class: "tools" }, word("Previous confusion", () => jumpToConfusion(-1)), word("Next confusion", () => jumpToConfusion(1))),
      element("div", { class: "tools", role: "group", "aria-label": "Predictions shown" },
        element("span", { class: "quiet" }, "Predictions"),
        word("all", () => choose(() => true)),
        word("with partner", () => choose((track) => track.partner !== null)),
        word("none", () => choose(() => false)),
        scoreField(tracks.predictions, choose)),
    ),
    stateLegend(),
    all.length ? element("div", { class: "scroll tall", role: "region", tabindex: 0, "aria-label": "Timeline of the tracks" }, bars.chart) : element("p", { class: "empty" }, "No tracks."),
    element("p", { class: "quiet keys" }, "Keys: ← → step, space plays, Home and End, n and p go to the next and previous confusion."),
  ];
  const view = element("div", { class: "stack" }, ...content.filter((part) => part !== null));
  return {
    element: view,
    show,
    stop,
    key(event) {
      if (!(event.key in keys) || !video.frames.length) return;
      event.preventDefault();
      keys[event.key]();
    },
  };
}

function scoreField(predictions, choose) {
  const scores = predictions.map((track) => track.score).filter(isNumber);
  if (!scores.length) return null;
  const field = element("input", {
    type: "number", min: 0, max: 1, step: 0.05, value: 0, class: "short",
    oninput: () => choose((track) => (track.score ?? 1) >= Number(field.value)),
  });
  return element("label", { class: "quiet" }, "score at least ", field);
}

function nameTrack(track, frame) {
  const state = frame ? STATES[track.states[frame.index]] ?? "absent" : null;
  const score = isNumber(track.score) ? `, score ${track.score.toFixed(2)}` : "";
  return `${track.side === "truth" ? "Truth" : "Prediction"} ${track.key}: ${track.name}${score}${state ? `, ${state}` : ""}`;
}

function canvasSide(title, video, tracks, calls) {
  const scale = Math.max(1, Math.round(CANVAS_WIDTH / video.width));
  const canvas = element("canvas", {
    width: video.width * scale, height: video.height * scale, role: "img",
    onpointermove: (event) => calls.light(trackAt(event)),
    onpointerleave: () => calls.light(null),
  });
  canvas.style.aspectRatio = `${video.width} / ${video.height}`;
  let owners = null;

  function trackAt(event) {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const x = clamp(Math.floor((video.width * (event.clientX - left)) / width), 0, video.width - 1);
    const y = clamp(Math.floor((video.height * (event.clientY - top)) / height), 0, video.height - 1);
    return tracks[owners?.[y * video.width + x] ?? -1] ?? null;
  }

  return {
    figure: element("figure", {}, element("figcaption", {}, title), canvas),
    draw(frame, picture, lit) {
      owners = ownersOf(video, tracks, frame, lit);
      paint(canvas, video, tracks, owners, picture, lit);
      const seen = tracks.filter((track) => track.visible && track.masks[frame]).map((track) => `${track.key} ${track.name}`);
      canvas.setAttribute("aria-label", `${title}, frame ${video.frames[frame].index}: ${seen.join(", ") || "nothing"}`);
    },
  };
}
