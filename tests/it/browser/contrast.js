// Lists the texts that can be seen and whose contrast to what lies behind them is below 4.5, as `text: ratio`.
// Colors with transparency are laid over one another from the page upward, and `opacity` counts as transparency of the text.
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

/** Any color of CSS as [red, green, blue, alpha], alpha from 0 to 1. */
function channels(color) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, alpha / 255];
}

const over = ([r, g, b, a], under) => [r, g, b].map((one, at) => one * a + under[at] * (1 - a));

function luminance(color) {
  const [r, g, b] = color.map((one) => (one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function ratio(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

function ancestors(element) {
  const found = [];
  for (let one = element; one; one = one.parentElement) found.unshift(one);
  return found;
}

function check(element, text, color) {
  const chain = ancestors(element);
  const ground = chain.reduce((under, one) => over(channels(getComputedStyle(one).backgroundColor), under), [255, 255, 255]);
  const opacity = chain.reduce((product, one) => product * getComputedStyle(one).opacity, 1);
  const [r, g, b, a] = channels(color);
  const found = ratio(over([r, g, b, a * opacity], ground), ground);
  return found < 4.5 ? [`${text.trim().slice(0, 40)}: ${found.toFixed(2)}`] : [];
}

const isSeen = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;

const faint = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const element = node.parentElement;
  if (node.data.trim() === "" || !isSeen(element)) continue;
  const style = getComputedStyle(element);
  faint.push(...check(element, node.data, element instanceof SVGElement ? style.fill : style.color));
}
for (const control of document.querySelectorAll("input, select")) {
  if (isSeen(control)) faint.push(...check(control, control.name, getComputedStyle(control).color));
}
return faint;
