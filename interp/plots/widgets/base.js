"use strict";
// What all widgets share. A widget is WIDGETS[kind] = (host, data) => ({ toSvg }), where toSvg makes
// an <svg> element of what is shown now, for downloads. Text from data goes in by textContent alone.
const WIDGETS = {};
const DRAWN = new Map();
const SVG = "http://www.w3.org/2000/svg";

// An HTML element with attributes and children; strings become text.
function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// The same for SVG.
function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// What a widget was given.
function dataOf(host) {
  return JSON.parse(document.querySelector(`script[data-of="${host.id}"]`).textContent);
}

// A number as the report writes it: a real minus sign, no sign on zero.
function written(value, digits = 2) {
  if (value === null || !Number.isFinite(value)) return "";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : text.replace("-", "\u2212");
}
