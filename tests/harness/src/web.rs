//! A minimal HTTP client without TLS.

use http_body_util::BodyExt as _;

/// Sends a GET request; returns status and body, or `None` if there is no response or its body is not UTF-8.
pub async fn get(url: &str) -> Option<(u16, String)> {
    let (status, body) = send(http::Request::get(url).body(String::new()).ok()?).await?;
    Some((status, String::from_utf8(body).ok()?))
}

pub(crate) async fn send(request: http::Request<String>) -> Option<(u16, Vec<u8>)> {
    let client =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let response = client.request(request).await.ok()?;
    let status = response.status().as_u16();
    Some((status, response.into_body().collect().await.ok()?.to_bytes().to_vec()))
}
