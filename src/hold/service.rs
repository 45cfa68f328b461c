//! Requests to the ports of the model, as kthena-router sends them.

use std::{collections::BTreeSet, convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, VIA},
};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Incoming};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{
    HoldSettings,
    admission::{Admission, Place},
    body::{self, Summary},
    delivery::{Delivery, EngineBody, VIA_NAME},
    metrics::Metrics,
    queue::Queue,
    refusal::{RETRY_AFTER_SECONDS, Refusal},
    stream::{self, Deliver},
};

/// Body of a response. An error ends the connection, so that the client sees that the response is incomplete.
pub type ResponseBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// The service of all ports.
#[derive(Debug)]
pub struct Service {
    models: BTreeSet<String>,
    timeout: Duration,
    keep_alive_after: Option<Duration>,
    admission: Admission,
    queue: Arc<Queue>,
    metrics: Metrics,
}

impl Service {
    pub fn new(settings: HoldSettings, admission: Admission, queue: Arc<Queue>, metrics: Metrics) -> Self {
        let HoldSettings { models, timeout, keep_alive_after, .. } = settings;
        Self { models, timeout, keep_alive_after, admission, queue, metrics }
    }

    /// Responds to a request that came in at this address and port.
    pub async fn respond(&self, local: (IpAddr, u16), request: Request<Incoming>) -> Response<ResponseBody> {
        match (request.method(), request.uri().path()) {
            // The router asks both about once a second, and ignores other pods until it has the answer. Without metrics it takes
            // the queue for empty.
            (&Method::GET, "/metrics") => full(StatusCode::OK, "text/plain; version=0.0.4", ""),
            (&Method::GET, "/v1/models") => full(StatusCode::OK, "application/json", self.model_list()),
            (&Method::POST, _) => {
                self.hold(local, request).await.unwrap_or_else(|refusal| self.refuse(refusal))
            }
            _ => self.refuse(Refusal::UnknownPath),
        }
    }

    fn model_list(&self) -> String {
        let models: Vec<_> = self.models.iter().map(|id| json!({"id": id, "object": "model"})).collect();
        json!({"object": "list", "data": models}).to_string()
    }

    fn refuse(&self, refusal: Refusal) -> Response<ResponseBody> {
        self.metrics.refused(refusal);
        let mut response = full(refusal.status(), "application/json", refusal.body());
        if refusal.is_retryable() {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response
    }

    async fn hold(
        &self,
        local: (IpAddr, u16),
        request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let (head, mut incoming) = request.into_parts();
        let read = self.read(&head.headers, &mut incoming).await;
        if read.is_err() {
            body::ignore(incoming).await;
        }
        let (place, body, streams) = read?;
        self.metrics.received();
        let arrived = Instant::now();
        let delivery = Delivery {
            head,
            body,
            local,
            arrived,
            deadline: arrived + self.timeout,
            place,
            position: self.queue.position(),
            metrics: self.metrics.clone(),
        };
        let mut deliver: Deliver = Box::pin(delivery.run());
        let Some(after) = self.keep_alive_after.filter(|_| streams) else {
            return Ok(deliver.await?.map(EngineBody::boxed_unsync));
        };
        tokio::select! {
            biased;
            result = &mut deliver => Ok(result?.map(EngineBody::boxed_unsync)),
            () = sleep(after) => Ok(opened(deliver, after, self.metrics.clone())),
        }
    }

    /// Takes a place and reads the body; returns with `true` if the client expects a stream.
    async fn read(
        &self,
        headers: &HeaderMap,
        incoming: &mut Incoming,
    ) -> Result<(Place, Bytes, bool), Refusal> {
        if is_from_stand_in(headers) {
            return Err(Refusal::Loop);
        }
        let mut place = self.admission.admit()?;
        // A client that sends it slowly keeps a place no longer than one that waits.
        let body = timeout(self.timeout, body::read(incoming, &mut place)).await;
        let body = body.map_err(|_| Refusal::BodyIncomplete)??;
        let summary = Summary::of(&body)?;
        let is_known = |model: &str| self.models.is_empty() || self.models.contains(model);
        if !summary.model.as_deref().is_none_or(is_known) {
            return Err(Refusal::UnknownModel);
        }
        if summary.model.is_none() && !self.models.is_empty() {
            return Err(Refusal::InvalidBody);
        }
        let streams = summary.stream == Some(true);
        Ok((place, body, streams))
    }
}

fn is_from_stand_in(headers: &HeaderMap) -> bool {
    headers.get_all(VIA).iter().any(|via| via.to_str().is_ok_and(|via| via.contains(VIA_NAME)))
}

/// The head of a stream, with comments until the engine answers. The status cannot change any more.
fn opened(deliver: Deliver, every: Duration, metrics: Metrics) -> Response<ResponseBody> {
    let events = StreamBody::new(stream::events(deliver, every, metrics));
    let mut response = Response::new(events.map_err(|never: Infallible| match never {}).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
