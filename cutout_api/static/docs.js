// Swagger UI on this service's own OpenAPI document; a classic script has defined the bundle.

const element = document.querySelector("#swagger-ui");

/**
 * Swagger UI fills every example and every default into "Try it out", and asked together they
 * contradict each other. Said in the description instead, they leave the fields empty.
 */
function leaveFieldsEmpty(parameter) {
  const { example, schema: { default: usual, ...schema }, ...rest } = parameter;
  const words = [parameter.description];
  if (usual !== undefined) words.push(`Default: \`${usual}\`.`);
  else if (example !== undefined) words.push(`Example: \`${example}\`.`);
  return { ...rest, schema, description: words.join(" ") };
}

function adapt(document) {
  for (const operation of Object.values(document.paths ?? {}).flatMap(Object.values)) {
    if (operation.parameters) operation.parameters = operation.parameters.map(leaveFieldsEmpty);
  }
  return document;
}

const wrapActions = { updateJsonSpec: (update) => (document) => update(adapt(document)) };

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

window.SwaggerUIBundle({
  url: element.dataset.document,
  domNode: element,
  plugins: [() => ({ statePlugins: { spec: { wrapActions } } })],
  validatorUrl: null, // no badge: it would send the document's address to a public site
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
});
