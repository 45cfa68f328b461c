//! Counts every request to the API server, and every write that it accepted, in a layer of the client.

use std::task::{Context, Poll};

use futures::{FutureExt as _, future::BoxFuture};
use http::{Method, Request, Response};
use kube::client::Body;
use tower::Service;

use crate::telemetry::metrics::Metrics;

/// Layer of a client that counts requests and accepted writes.
#[derive(Clone, Debug)]
pub(super) struct RequestMetrics<S> {
    pub(super) inner: S,
    pub(super) metrics: Metrics,
}

impl<S, B> Service<Request<Body>> for RequestMetrics<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (metrics, method, write) =
            (self.metrics.clone(), request.method().clone(), resource_and_verb(&request));
        let response = self.inner.call(request);
        async move {
            let response = response.await;
            let status = response.as_ref().ok().map(Response::status);
            metrics.request(method.as_str(), status.map(|status| status.as_u16()));
            if let Some((resource, verb)) = write
                && status.is_some_and(|status| status.is_success())
            {
                metrics.write(resource, verb);
            }
            response
        }
        .boxed()
    }
}

/// The resource and verb of a write in RBAC's words, such as `modelservings/status` and `patch`; `None` for a
/// read.
fn resource_and_verb(request: &Request<Body>) -> Option<(String, &'static str)> {
    let verb = match *request.method() {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return None,
    };
    // /apis/GROUP/VERSION or /api/VERSION, then optionally namespaces/NAME, then RESOURCE, NAME and
    // SUBRESOURCE.
    let mut parts = request.uri().path().split('/').skip(1);
    let group = usize::from(parts.next()? != "api");
    let mut parts = parts.skip(group + 1).peekable();
    if parts.peek() == Some(&"namespaces") {
        parts.nth(1);
    }
    let (resource, subresource) = (parts.next()?, parts.nth(1));
    Some((
        subresource.map_or_else(|| resource.to_owned(), |subresource| format!("{resource}/{subresource}")),
        verb,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("GET", "/apis/keda.sh/v1alpha1/scaledobjects", None)]
    #[case("PATCH", "/apis/keda.sh/v1alpha1/namespaces/models/scaledobjects/chat", Some(("scaledobjects", "patch")))]
    #[case("PATCH", "/apis/workload.serving.volcano.sh/v1alpha1/namespaces/models/modelservings/chat/status", Some(("modelservings/status", "patch")))]
    #[case("PATCH", "/apis/autoscaling.kthena.io/v1alpha1/autoscalingprofiles/default/status", Some(("autoscalingprofiles/status", "patch")))]
    #[case("POST", "/apis/events.k8s.io/v1/namespaces/models/events", Some(("events", "create")))]
    #[case("PUT", "/apis/coordination.k8s.io/v1/namespaces/kthena-keda/leases/kthena-keda", Some(("leases", "update")))]
    #[case("DELETE", "/api/v1/namespaces/models/pods/chat-0", Some(("pods", "delete")))]
    #[case("POST", "/", None)]
    fn resource_and_verb_follow_from_the_path(
        #[case] method: &str,
        #[case] path: &str,
        #[case] expected: Option<(&str, &str)>,
    ) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        assert_eq!(resource_and_verb(&request), expected.map(|(resource, verb)| (resource.to_owned(), verb)));
    }
}
