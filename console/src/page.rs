//! The page that shows what the node is doing, served from the binary.
//!
//! Plain files, no build step: what is in the source tree is what the browser gets. They refer to nothing outside of this process.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;

/// What the page may do: load its own style and script, and ask the node.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

pub(crate) async fn html() -> impl IntoResponse {
    file(
        "text/html; charset=utf-8",
        include_str!("page/console.html"),
    )
}

pub(crate) async fn css() -> impl IntoResponse {
    file("text/css; charset=utf-8", include_str!("page/console.css"))
}

pub(crate) async fn js() -> impl IntoResponse {
    file(
        "text/javascript; charset=utf-8",
        include_str!("page/console.js"),
    )
}

/// Not cached: the next version of the node has other files under the same names.
fn file(
    content_type: &'static str,
    text: &'static str,
) -> ([(HeaderName, HeaderValue); 2], &'static str) {
    (
        [
            (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(CONTENT_SECURITY_POLICY),
            ),
        ],
        text,
    )
}
