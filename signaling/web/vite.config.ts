import { defineConfig } from "vite";

// The page is served at /, /r/{room} and /assets/* under `default-src 'self'`: no inlined assets, no module-preload
// polyfill script, absolute asset paths.
export default defineConfig({
  base: "/",
  build: {
    target: "es2022",
    outDir: "dist",
    assetsDir: "assets",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
  },
});
