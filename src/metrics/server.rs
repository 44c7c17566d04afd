//! Serves the metrics over HTTP at `/metrics`.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;
use tokio::net::TcpListener;

/// Answers requests on `listener` with what `gather` finds, for as long as the future is polled.
pub async fn serve<G>(listener: TcpListener, gather: G) -> std::io::Result<()>
where
    G: Fn() -> Vec<MetricFamily> + Clone + Send + Sync + 'static,
{
    let metrics = move || {
        let text = TextEncoder::new().encode_to_string(&gather());
        async move {
            match text {
                Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
            }
        }
    };
    axum::serve(listener, Router::new().route("/metrics", get(metrics))).await
}
