"use strict";
(() => {
  const study = JSON.parse(document.getElementById("study").textContent);
  const at = (id) => document.getElementById(id);
  const PLACES = ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th"];
  const GRADES = [[0, "No"], [0.5, "Partly"], [1, "Yes"]];
  const HOW = {
    ranks: "Choose the best picture first, then the next best, until all have a place.",
    pairs: "Choose one of the two.",
    rubric: "Judge this picture by itself.",
  };
  const KEYS = {
    ranks: [["1 – 9", "give that picture the next place"], ["← →", "go from picture to picture"],
      ["Enter", "choose it, or go on"], ["⌫ or U", "undo"]],
    pairs: [["1 2", "choose that picture"], ["0", "no difference"], ["← →", "go from picture to picture"],
      ["Enter", "choose it"], ["⌫ or U", "undo"]],
    rubric: [["1 2 3", "no, partly, yes"], ["← →", "go from answer to answer"], ["Enter", "choose it"],
      ["⌫ or U", "undo"]],
  };
  let rater = 0, screens = [], answers = {}, place = 0, draft = [], shownAt = 0, canStore = true;

  // What is kept in the browser, by study and rater.
  const drawer = () => `study-${study.study}-${rater}`;
  const file = () => JSON.stringify({
    format: "mmbench-answers/1", study: study.study, rater, saved: new Date().toISOString(), answers,
  }, null, 1);
  function keep() {
    try { localStorage.setItem(drawer(), JSON.stringify(answers)); } catch { canStore = false; }
  }
  function fits(screen, value) {
    if (study.kind === "rubric") return GRADES.some(([grade]) => grade === value);
    if (study.kind === "pairs") return value === null || screen.pictures.includes(value);
    return Array.isArray(value) && value.length === screen.pictures.length
      && new Set(value).size === value.length && value.every((one) => screen.pictures.includes(one));
  }
  function recall() {
    answers = {};
    try {
      const kept = JSON.parse(localStorage.getItem(drawer()) || "{}");
      for (const screen of screens) {
        const found = kept[screen.id];
        if (found && fits(screen, found.value) && Number.isFinite(found.seconds)) {
          answers[screen.id] = { value: found.value, seconds: found.seconds };
        }
      }
    } catch { canStore = false; }
  }

  function show(name) {
    for (const one of ["start", "work", "end"]) at(one).hidden = one !== name;
    at("top").hidden = name === "start";
    window.scrollTo(0, 0);
  }
  function say(words) { at("said").textContent = words; }
  function element(tag, words, kind) {
    const made = document.createElement(tag);
    if (words !== undefined) made.textContent = words;
    if (kind) made.className = kind;
    return made;
  }
  function picture(id, alt) {
    const made = element("img");
    made.src = "data:image/png;base64," + study.pictures[id];
    made.alt = alt;
    made.draggable = false;
    return made;
  }
  const numDone = () => screens.filter((screen) => screen.id in answers).length;
  const firstOpen = () => screens.findIndex((screen) => !(screen.id in answers));

  function progress() {
    at("bar").max = screens.length;
    at("bar").value = numDone();
    at("count").textContent = `${Math.min(place + 1, screens.length)} of ${screens.length}`;
  }
  function context(item) {
    at("given").hidden = !item.input && item.prompt === null;
    at("input").hidden = !item.input;
    if (item.input) {
      at("input-picture").src = "data:image/png;base64," + study.pictures[item.input];
      at("input-picture").alt = study.input;
      at("input-words").textContent = study.input;
    }
    at("prompt").hidden = item.prompt === null;
    at("prompt").textContent = item.prompt === null ? "" : item.prompt;
  }
  function open(number) {
    place = number;
    const screen = screens[place], known = answers[screen.id];
    draft = known && study.kind === "ranks" ? [...known.value] : [];
    show("work");
    const several = study.questions.length, question = study.questions[screen.question];
    const turn = new Set(screens.slice(0, place + 1).map((one) => one.question)).size;
    const isNew = place === 0 || screens[place - 1].question !== screen.question;
    at("part").textContent = isNew && place > 0 ? `From here on another question: ${turn} of ${several}`
      : `Question ${turn} of ${several}`;
    at("part").hidden = several < 2;
    at("part").className = isNew && place > 0 ? "new" : "";
    at("work").className = isNew ? "" : "known";
    at("question").textContent = question.asked;
    at("how").textContent = [question.explained, HOW[study.kind]].filter(Boolean).join(" ");
    context(study.items[screen.item]);
    choices(screen, known);
    at("undo").disabled = place === 0 && draft.length === 0;
    at("level").hidden = study.kind !== "pairs";
    at("level").setAttribute("aria-pressed", String(Boolean(known) && study.kind === "pairs" && known.value === null));
    at("next").hidden = study.kind !== "ranks";
    mark();
    progress();
    say(`${place + 1} of ${screens.length}. ${question.asked}`);
    shownAt = performance.now();
    at("question").focus({ preventScroll: true });
  }
  function choices(screen, known) {
    const group = at("choices"), count = screen.pictures.length;
    const across = count > 5 ? Math.ceil(count / 2) : count;
    group.className = [study.kind, count === 1 && "alone", count > across && "two-rows", at("given").hidden && "bare"]
      .filter(Boolean).join(" ");
    group.style.setProperty("--across", across);
    at("grades").hidden = study.kind !== "rubric";
    if (study.kind === "rubric") {
      const figure = element("figure", undefined, "picture");
      figure.append(picture(screen.pictures[0], "The picture to judge"));
      group.replaceChildren(figure);
      at("grades").replaceChildren(...GRADES.map(([grade, words], index) => {
        const button = element("button", words + " ");
        button.type = "button";
        button.append(element("kbd", String(index + 1)));
        button.setAttribute("aria-pressed", String(Boolean(known) && known.value === grade));
        button.addEventListener("click", () => settle(grade));
        return button;
      }));
      return;
    }
    group.replaceChildren(...screen.pictures.map((id, index) => {
      const button = element("button", undefined, "picture");
      button.type = "button";
      button.dataset.id = id;
      button.append(picture(id, `Picture ${index + 1}`));
      const foot = element("span", undefined, "foot");
      foot.append(element("kbd", String(index + 1)), element("span", "", "place"));
      button.append(foot);
      button.setAttribute("aria-pressed", String(Boolean(known) && known.value === id));
      button.addEventListener("click", () => (study.kind === "pairs" ? settle(id) : rank(id)));
      return button;
    }));
  }
  function mark() {
    if (study.kind !== "ranks") return;
    for (const button of at("choices").children) {
      const rankOf = draft.indexOf(button.dataset.id);
      button.setAttribute("aria-pressed", String(rankOf >= 0));
      button.querySelector(".place").textContent = rankOf < 0 ? "" : PLACES[rankOf];
    }
    at("next").disabled = draft.length < screens[place].pictures.length;
    at("undo").disabled = place === 0 && draft.length === 0;
  }
  function rank(id) {
    const { pictures } = screens[place], known = draft.indexOf(id);
    if (known >= 0) {
      if (draft.length === pictures.length) draft.pop(); // the last place was given by itself
      draft = known === draft.length ? draft.slice(0, -1) : draft.filter((one) => one !== id);
    } else {
      draft.push(id);
      const left = pictures.filter((one) => !draft.includes(one));
      if (left.length === 1) draft.push(left[0]);
    }
    mark();
    say(draft.map((one, index) => `${PLACES[index]}: picture ${pictures.indexOf(one) + 1}`).join(", "));
    if (draft.length === pictures.length) at("next").focus({ preventScroll: true });
  }
  function settle(value) {
    const screen = screens[place], before = screen.id in answers ? answers[screen.id].seconds : 0;
    const seconds = Math.round(before * 1000 + performance.now() - shownAt) / 1000;
    answers[screen.id] = { value, seconds };
    keep();
    tellSaved("");
    onward();
  }
  function onward() {
    if (place + 1 < screens.length && !(screens[place + 1].id in answers)) return open(place + 1);
    const next = firstOpen();
    if (next >= 0) return open(next);
    show("end");
    place = screens.length - 1;
    progress();
    at("end").querySelector("h1").focus();
    say("All answered.");
  }
  function undo() {
    if (study.kind === "ranks" && draft.length) {
      draft.pop();
      if (draft.length === screens[place].pictures.length - 1) draft.pop(); // the last place was given by itself
      mark();
      say("Undone.");
    } else if (place > 0) {
      open(place - 1);
    }
  }
  function tellSaved(words) { at("saved").textContent = at("kept-as").textContent = words; }
  function save() {
    const link = element("a"), moment = new Date().toISOString().slice(0, 19).replace(/[-:]/g, "");
    link.href = URL.createObjectURL(new Blob([file()], { type: "application/json" }));
    link.download = `answers-${study.study.slice(0, 8)}-r${rater}-${moment}.json`;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    const words = `Saved as ${link.download}, ${numDone()} of ${screens.length} answered.`;
    tellSaved(words);
    say(words);
  }

  // The next person at one device: what the last one said goes, and is offered as a file before.
  function ask() {
    at("kept").textContent = `${numDone()} of ${screens.length} answers are kept here, and would be removed.`;
    if (!at("saved").textContent) {
      at("kept-as").textContent = "They have not been saved since this page was opened: save them first.";
    }
    at("asking").showModal();
  }
  function startAnew() {
    try { localStorage.removeItem(drawer()); } catch { canStore = false; }
    at("asking").close();
    choose(rater);
    show("start");
    at("start").querySelector("h1").focus();
    say("Removed. Begin anew.");
  }

  function step(by) {
    const group = study.kind === "rubric" ? at("grades") : at("choices");
    const buttons = [...group.querySelectorAll("button")];
    const now = buttons.indexOf(document.activeElement);
    const next = now < 0 ? (by > 0 ? 0 : buttons.length - 1) : (now + by + buttons.length) % buttons.length;
    buttons[next].focus();
  }
  function pressed(event) {
    if (at("work").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const group = study.kind === "rubric" ? at("grades") : at("choices");
    const buttons = group.querySelectorAll("button"), number = Number(event.key);
    if (/^[1-9]$/.test(event.key) && number <= buttons.length) buttons[number - 1].click();
    else if (event.key === "0" && study.kind === "pairs") settle(null);
    else if (event.key === "ArrowRight" || event.key === "ArrowDown") step(1);
    else if (event.key === "ArrowLeft" || event.key === "ArrowUp") step(-1);
    else if (event.key === "Backspace" || event.key === "u" || event.key === "U") undo();
    else if (event.key === "Enter" && document.activeElement.tagName !== "BUTTON" && study.kind === "ranks"
      && !at("next").disabled) settle([...draft]);
    else return;
    event.preventDefault();
  }

  function choose(number) {
    rater = number;
    screens = study.raters[rater - 1];
    recall();
    tellSaved("");
    const done = numDone();
    at("another").hidden = !done;
    const minutes = Math.max(1, Math.round(screens.length * { ranks: 12, pairs: 6, rubric: 5 }[study.kind] / 60));
    at("welcome").textContent = `You will see ${screens.length} screens, and are asked of each:`;
    at("asked").replaceChildren(...study.questions.map((question) => element("li", question.asked)));
    at("begin").textContent = !done ? `Begin (about ${minutes} min)` : `Go on (${done} of ${screens.length} answered)`;
    at("warning").textContent = canStore ? "" : "This browser keeps nothing: do not close the page before you have saved.";
  }
  function arrive() {
    const asked = /^#r=([1-9][0-9]{0,3})$/.exec(location.hash);
    const many = study.raters.length > 1;
    at("whose").hidden = !many || Boolean(asked);
    at("rater").replaceChildren(...study.raters.map((_, index) => element("option", String(index + 1))));
    const known = asked ? Number(asked[1]) : 1;
    choose(known <= study.raters.length ? known : 1);
    if (known > study.raters.length) {
      at("warning").textContent = `This study has numbers 1 to ${study.raters.length}, and no ${known}: choose yours.`;
      at("whose").hidden = false;
    }
    at("keys").replaceChildren(...KEYS[study.kind].flatMap(([keys, what]) => {
      const term = element("dt");
      term.append(element("kbd", keys));
      return [term, element("dd", what)];
    }));
    show("start");
  }
  at("rater").addEventListener("change", (event) => choose(Number(event.target.value)));
  at("begin").addEventListener("click", () => { firstOpen() < 0 ? onward() : open(firstOpen()); });
  at("undo").addEventListener("click", undo);
  at("level").addEventListener("click", () => settle(null));
  at("next").addEventListener("click", () => settle([...draft]));
  at("again").addEventListener("click", () => open(screens.length - 1));
  at("save").addEventListener("click", save);
  at("save-now").addEventListener("click", save);
  for (const button of document.querySelectorAll(".anew")) button.addEventListener("click", ask);
  at("save-first").addEventListener("click", save);
  at("remove").addEventListener("click", startAnew);
  at("stay").addEventListener("click", () => at("asking").close());
  document.addEventListener("keydown", pressed);
  window.addEventListener("hashchange", arrive);
  arrive();
})();
