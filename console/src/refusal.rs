//! A request that is not served: a status and, as JSON, what is wrong with it.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use flowstone_coordinator::Report;
use serde::Serialize;

/// Why a request is not served.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    report: Report,
}

impl Refusal {
    pub(crate) const fn new(status: StatusCode, report: Report) -> Self {
        Self { status, report }
    }

    /// A request that does not say what it must say.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Report::new("08P01", message))
    }

    /// A request from where none are taken.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, Report::new("42501", message))
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.report = self.report.with_hint(hint);
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: ErrorJson::from(&self.report),
        };
        (self.status, Json(body)).into_response()
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorJson<'a>,
}

/// An error as JSON; what is not known is left out.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorJson<'a> {
    message: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
}

impl<'a> From<&'a Report> for ErrorJson<'a> {
    fn from(report: &'a Report) -> Self {
        Self {
            message: &report.message,
            code: &report.code,
            detail: report.detail.as_deref(),
            hint: report.hint.as_deref(),
            position: report.position,
        }
    }
}
