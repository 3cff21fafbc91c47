//! From a request's method and path to its answer.

use super::{AdminSource, Readiness};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use std::sync::Arc;

/// Content type of the metrics, exactly as Prometheus negotiates it.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";
const JSON_TYPE: &str = "application/json";

const INDEX: &str = "pgweir\n\n\
    /metrics  metrics for Prometheus\n\
    /healthz  200 while the process works\n\
    /readyz   200 while clients should be sent here, else 503; with the reasons\n";

/// Answers one request. The body of a HEAD request's answer is left out by the HTTP library.
pub(super) async fn answer(
    method: &Method,
    path: &str,
    source: Arc<dyn AdminSource>,
) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, allowed);
        return refusal;
    }
    match path {
        "/" => text(StatusCode::OK, INDEX),
        "/metrics" => metrics(source).await,
        "/healthz" if source.alive() => text(StatusCode::OK, "ok\n"),
        "/healthz" => text(StatusCode::SERVICE_UNAVAILABLE, "not alive\n"),
        "/readyz" => readiness(&source.readiness()),
        _ => text(StatusCode::NOT_FOUND, "not found; / lists what there is\n"),
    }
}

/// Rendering reads files and takes milliseconds with many pools: not on a thread of the clients.
async fn metrics(source: Arc<dyn AdminSource>) -> Response<Full<Bytes>> {
    match tokio::task::spawn_blocking(move || source.metrics_text()).await {
        Ok(text) => response(StatusCode::OK, METRICS_TYPE, text),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "metrics failed");
            text(StatusCode::INTERNAL_SERVER_ERROR, "metrics failed\n")
        }
    }
}

fn readiness(readiness: &Readiness) -> Response<Full<Bytes>> {
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(readiness) {
        Ok(json) => response(status, JSON_TYPE, json + "\n"),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "readiness failed\n"),
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, TEXT_TYPE, text)
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
