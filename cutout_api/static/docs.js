// Swagger UI on this service's own OpenAPI document; a classic script has defined the bundle.

const element = document.querySelector("#swagger-ui");

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

window.SwaggerUIBundle({
  url: element.dataset.document,
  domNode: element,
  validatorUrl: null, // the badge would send the document's address to a public site
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
});
