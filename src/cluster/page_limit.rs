//! Bounds the length of a list's page, in a layer of the client: anyone who may edit an object can make it as long as etcd accepts.

use std::task::{Context, Poll};

use futures::{FutureExt as _, TryFutureExt as _, future::BoxFuture};
use http::{Request, Response};
use http_body_util::Limited;
use hyper::body::Bytes;
use kube::client::Body;
use tower::{BoxError, Service};

/// Most bytes of a page, which kube holds twice before it decodes them. A hundred usual ModelServings have 1 MB, and etcd accepts 1.5 MiB for
/// one object.
const PAGE_BYTES: usize = 8 << 20;

/// Layer of a client that ends a longer page with a [`LengthLimitError`](http_body_util::LengthLimitError). Other responses have no limit.
#[derive(Clone, Debug)]
pub(super) struct PageLimit<S> {
    pub(super) inner: S,
}

impl<S, B> Service<Request<Body>> for PageLimit<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: hyper::body::Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Limited<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let query = request.uri().query().unwrap_or_default();
        let is_page = query.split('&').any(|pair| pair.starts_with("limit="));
        let most = if is_page { PAGE_BYTES } else { usize::MAX };
        self.inner.call(request).map_ok(move |response| response.map(|body| Limited::new(body, most))).boxed()
    }
}
