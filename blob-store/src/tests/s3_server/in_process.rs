//! An HTTP client that calls the server directly, so that paused time advances only when nothing else can happen.

use std::{fmt, io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use hyper::{
    Request, Uri,
    body::{Body, Frame, SizeHint},
    header::{CONTENT_LENGTH, HOST, HeaderValue},
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
        HttpService,
    },
};

use super::{State, body::ResponseBody};

#[derive(Clone)]
pub(super) struct InProcess(pub(super) Arc<State>);

impl fmt::Debug for InProcess {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("InProcess")
    }
}

impl HttpConnector for InProcess {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for InProcess {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.respond(as_received(request)).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => HttpError::new(HttpErrorKind::Connect, error),
            _ => HttpError::new(HttpErrorKind::Interrupted, error),
        })?;
        Ok(response.map(|body| HttpResponseBody::new(HttpBody(body))))
    }
}

/// The request as a server receives it: with the headers that an HTTP client adds, and the path as its URI.
fn as_received(request: HttpRequest) -> Request<s3s::Body> {
    let (mut parts, body) = request.into_parts();
    let host = parts.uri.authority().unwrap().as_str();
    parts.headers.insert(HOST, HeaderValue::from_str(host).unwrap());
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.content_length()));
    parts.uri = Uri::builder().path_and_query(parts.uri.path_and_query().unwrap().clone()).build().unwrap();
    Request::from_parts(parts, s3s::Body::http_body(body))
}

/// A response body with the error type of the client.
struct HttpBody(ResponseBody);

impl Body for HttpBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = std::pin::Pin::new(&mut self.0).poll_frame(context);
        frame.map_err(|error| HttpError::new_boxed(HttpErrorKind::Interrupted, error))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
