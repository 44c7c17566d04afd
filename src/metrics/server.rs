//! Serves the metrics over HTTP at `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::TextEncoder;
use tokio::net::TcpListener;

use super::collector::ForwardCollector;

/// Answers requests on `listener` for as long as the future is polled.
pub async fn serve(listener: TcpListener, collector: Arc<ForwardCollector>) -> std::io::Result<()> {
    let metrics = move || {
        let text = TextEncoder::new().encode_to_string(&collector.gather());
        async move {
            match text {
                Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
            }
        }
    };
    axum::serve(listener, Router::new().route("/metrics", get(metrics))).await
}
