"use strict";
// Times in the viewer's own zone; forms that ask for more when one field changes; the menu.
(() => {
  const zone = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
  const localise = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      if (time.dataset.local !== undefined) time.textContent = zone.format(at);
      else time.title = zone.format(at);
    }
  };
  const menu = document.querySelector(".menu");
  const wide = matchMedia("(min-width: 46.01rem)");
  const fit = () => { if (menu) menu.open = wide.matches; };
  wide.addEventListener("change", fit);
  fit();
  localise(document);
  document.addEventListener("htmx:afterSettle", (event) => localise(event.target));
  for (const field of document.querySelectorAll("[data-reload]")) {
    field.addEventListener("change", () => {
      const form = new FormData(field.form);
      form.delete("csrf");
      form.delete("version");
      location.search = new URLSearchParams(form).toString();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      document.getElementById("q")?.focus();
    }
    if (event.key === "Escape") document.querySelector(".who")?.removeAttribute("open");
  });
})();
