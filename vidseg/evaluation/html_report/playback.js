// A playback steps through the frames of one video, truth and prediction in step.

const FRAMES_PER_SECOND = 8;
const CALM_FRAMES_PER_SECOND = 2; // for readers who ask for less motion
const CONFUSIONS = "smx";

class Playback {
  #at = 0; // position among the frames shown
  #lit = null; // the track that pointer or focus is on
  #timer = null;
  #pictures;

  constructor(video, classNames) {
    this.video = video;
    this.tracks = tracksOf(video, classNames);
    this.all = [...this.tracks.truths, ...this.tracks.predictions];
    const light = (track) => this.light(track);
    this.sides = [
      canvasSide("Truth", video, this.tracks.truths, light),
      canvasSide("Prediction", video, this.tracks.predictions, light),
    ];
    this.bars = timeline(video, this.tracks, {
      light,
      jump: (frame) => this.jump(frame),
      changed: () => this.#draw(),
      tell: (text) => this.tell(text),
    });
    this.status = element("p", { class: "status", "aria-live": "polite" });
    this.count = element("output", { class: "number frame-count" });
    this.keyBox = element("input", { type: "checkbox", checked: true, onchange: () => this.#draw() });
    this.playButton = iconButton("Play", ICONS.play, () => this.toggle());
    this.slider = element("input", {
      type: "range",
      min: 0,
      max: this.#last,
      value: 0,
      "aria-label": "Frame",
      oninput: () => this.show(Number(this.slider.value)),
    });
    this.#pictures = video.frames.map((frame, i) => this.#load(frame.image, i));
  }

  get #last() {
    return Math.max(this.video.frames.length - 1, 0);
  }

  get #frame() {
    return this.video.frames[this.#at];
  }

  // Shows the frame at a position among those of the report; the nearest end beyond them.
  show(position) {
    this.#at = clamp(position, 0, this.#last);
    if (this.#frame) {
      const { index } = this.#frame;
      this.slider.value = this.#at;
      this.slider.setAttribute("aria-valuetext", `frame ${index}`);
      this.count.textContent = `frame ${index} · ${this.#at + 1} of ${this.video.frames.length}`;
      this.bars.showFrame(index);
      this.#draw();
    }
    this.tell("");
  }

  step(by) {
    this.show(this.#at + by);
  }

  // Goes to a frame of the video, or to the nearest that is in the report.
  jump(index) {
    const distances = this.video.frames.map((frame) => Math.abs(frame.index - index));
    if (!distances.length) return;
    const distance = Math.min(...distances);
    this.show(distances.indexOf(distance));
    const shown = this.#frame.index;
    if (distance) this.tell(`Frame ${index} is not in this report; ${shown} is the nearest that is.`);
  }

  jumpToConfusion(direction) {
    for (let at = this.#at + direction; at >= 0 && at <= this.#last; at += direction) {
      const { index } = this.video.frames[at] ?? {};
      const confused = (track) => track.visible && CONFUSIONS.includes(track.states[index] ?? ".");
      if (this.all.some(confused)) return this.show(at);
    }
    const side = direction > 0 ? "after" : "before";
    return this.tell(`No confusion ${side} this frame among the tracks shown.`);
  }

  toggle() {
    if (this.#timer !== null) return this.stop();
    if (this.#at === this.#last) this.show(0);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const pause = 1000 / (calm ? CALM_FRAMES_PER_SECOND : FRAMES_PER_SECOND);
    const advance = () => (this.#at < this.#last ? this.step(1) : this.stop());
    this.#timer = setInterval(advance, pause);
    return this.#showPlaying(true);
  }

  stop() {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#showPlaying(false);
  }

  key(event) {
    const actions = {
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      Home: () => this.show(0),
      End: () => this.show(this.#last),
      " ": () => this.toggle(),
      n: () => this.jumpToConfusion(1),
      p: () => this.jumpToConfusion(-1),
    };
    if (!Object.hasOwn(actions, event.key) || !this.#frame) return;
    event.preventDefault();
    actions[event.key]();
  }

  // Shows the predictions for which visible(track) holds.
  choose(visible) {
    for (const track of this.tracks.predictions) track.visible = visible(track);
    this.bars.refresh();
    this.#draw();
  }

  light(track) {
    if (track === this.#lit) return;
    this.#lit = track;
    this.bars.light(track);
    this.#draw();
    this.tell("");
  }

  // The line beneath the pictures: a message, else the track lit, else what the frame holds.
  tell(message) {
    this.status.textContent = message || (this.#lit ? this.#tellLit() : this.#tellFrame());
  }

  #tellLit() {
    const { score } = this.#lit;
    const parts = [tellTrack(this.#lit)];
    if (isNumber(score)) parts.push(`score ${score.toFixed(2)}`);
    if (this.#frame) parts.push(stateIn(this.#lit, this.#frame.index));
    return parts.join(", ");
  }

  #tellFrame() {
    if (!this.#frame) return "";
    const { truths, predictions } = this.tracks;
    const times = (tracks, state) => tracks.filter((each) => each.states[this.#frame.index] === state).length;
    const parts = ["f", "s", "m"].map((state) => `${times(truths, state)} ${STATES[state]}`);
    return [...parts, `${times(predictions, "x")} ${STATES.x}`].join(" · ");
  }

  #draw() {
    if (!this.#frame) return;
    const lit = this.#lit?.visible ? this.#lit : null;
    const look = { picture: this.#pictures[this.#at], lit, keys: this.keyBox.checked };
    for (const side of this.sides) side.draw(this.#at, look);
  }

  // Gives null at first; once the picture is there it takes that place.
  #load(address, position) {
    if (!address?.startsWith("data:image/")) return null;
    const picture = new Image();
    picture.addEventListener("load", () => {
      this.#pictures[position] = picture;
      if (position === this.#at) this.#draw();
    });
    picture.src = address;
    return null;
  }

  // While frames run by, readers aloud are not told of each.
  #showPlaying(on) {
    const name = on ? "Pause" : "Play";
    this.playButton.setAttribute("aria-label", name);
    this.playButton.title = name;
    this.playButton.replaceChildren(icon(on ? ICONS.pause : ICONS.play));
    for (const told of [this.status, this.count]) told.setAttribute("aria-live", on ? "off" : "polite");
  }
}
