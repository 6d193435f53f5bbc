//! The HTTP door. A caller shows an API key or a token of signalling as `Authorization: Bearer` or as `key=`; `ttl=` asks
//! for another lifetime in seconds, `username=` names the person a program asks for.
//!
//! | route | answer |
//! | --- | --- |
//! | `GET`, `POST /v1/rtc-configuration` | RTCConfiguration: the operator's document with minted entries |
//! | `GET`, `POST /v1/ice-servers` | the list of RTCIceServer alone |
//! | `GET /turn`, `GET /?service=turn` | `{username, password, ttl, uris}` (draft-uberti-behave-turn-rest-00) |
//! | `POST /v1alpha/iceconfig` | `{lifetimeDuration, iceServers}`, as AppRTC's pages ask for it |
//! | `GET /v1/links` | 204 with `Link` headers for a WHIP server to hand on (RFC 9725 section 4.6) |
//!
//! Every answer has `Cache-Control: no-store`. A refusal is `{"error":{"code","message","hint"}}`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;

use super::config::Policy;
use super::desk::{Denied, Desk, Wish};
use super::envelope::Offer;

/// Longer than any lifetime of interest for a preflight; browsers have caps of their own.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Tells the time: monotonic for limits, seconds since 1970 for credentials.
pub(crate) type Clock = fn() -> (Instant, u64);

#[derive(Clone, Debug)]
struct Door {
    desk: Arc<Desk>,
    clock: Clock,
}

/// The forms of an answer; their names are labels of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    RtcConfiguration,
    IceServers,
    Classic,
    IceConfig,
    Links,
}

pub(crate) fn router(desk: Arc<Desk>, clock: Clock) -> Router {
    macro_rules! form {
        ($form:expr) => {
            |State(door): State<Door>, request: Request| async move { door.answer($form, &request) }
        };
    }
    let door = Door { desk, clock };
    Router::new()
        .route("/v1/rtc-configuration", get(form!(Form::RtcConfiguration)).post(form!(Form::RtcConfiguration)))
        .route("/v1/ice-servers", get(form!(Form::IceServers)).post(form!(Form::IceServers)))
        .route("/v1/links", get(form!(Form::Links)))
        .route("/v1alpha/iceconfig", post(form!(Form::IceConfig)))
        .route("/turn", get(form!(Form::Classic)))
        .route("/", get(form!(Form::Classic)))
        .layer(axum::middleware::from_fn_with_state(door.clone(), guard))
        .with_state(door)
}

/// The time of the machine.
pub(crate) fn system_clock() -> (Instant, u64) {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), unix.as_secs())
}

impl Door {
    fn answer(&self, form: Form, request: &Request) -> Response {
        let query = Query::read(request.uri().query().unwrap_or_default());
        let live = self.desk.live();
        let outcome = query.and_then(|query| {
            // The classic form at the root says what it wants; elsewhere the path does.
            let service = query.service.as_deref();
            if service.is_some_and(|service| service != "turn") || (request.uri().path() == "/" && service.is_none())
            {
                return Err(Denied::Request("service must be turn"));
            }
            let presented = bearer(request.headers()).or(query.key.as_deref()).unwrap_or_default();
            let wish = Wish {
                presented,
                user: query.username.as_deref(),
                ttl: query.ttl.as_deref(),
                needs_relay: form == Form::Classic,
            };
            let address = address(request, &live.policy);
            self.desk.serve(&live, wish, address, (self.clock)(), |offer| form.write(offer))
        });
        match outcome {
            Ok(response) => {
                self.desk.meters.minted(form.label());
                response
            }
            Err(denied) => {
                self.desk.meters.refused(denied.label());
                denied.into_response()
            }
        }
    }
}

impl Form {
    fn label(self) -> &'static str {
        match self {
            Self::RtcConfiguration => "rtc_configuration",
            Self::IceServers => "ice_servers",
            Self::Classic => "classic",
            Self::IceConfig => "iceconfig",
            Self::Links => "links",
        }
    }

    fn write(self, offer: Offer<'_>) -> Response {
        match self {
            Self::RtcConfiguration => json(StatusCode::OK, &offer.rtc_configuration()),
            Self::IceServers => json(StatusCode::OK, &offer.ice_servers()),
            Self::Classic => json(StatusCode::OK, &offer.classic()),
            Self::IceConfig => json(StatusCode::OK, &offer.iceconfig()),
            Self::Links => {
                let mut response = StatusCode::NO_CONTENT.into_response();
                for link in offer.links() {
                    if let Ok(mut value) = HeaderValue::try_from(link) {
                        value.set_sensitive(true);
                        response.headers_mut().append(header::LINK, value);
                    }
                }
                response
            }
        }
    }
}

/// Each at most once, and only those that some form knows; others are passed over.
#[derive(Default)]
struct Query {
    service: Option<String>,
    username: Option<String>,
    key: Option<String>,
    ttl: Option<String>,
}

impl Query {
    fn read(text: &str) -> Result<Self, Denied> {
        let mut query = Self::default();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let place = match &*name {
                "service" => &mut query.service,
                "username" => &mut query.username,
                "key" => &mut query.key,
                "ttl" => &mut query.ttl,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return Err(Denied::Request("a parameter stands twice in the query"));
            }
        }
        Ok(query)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The client's own, as far as it can be believed: what a trusted proxy wrote last.
fn address(request: &Request, policy: &Policy) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
    // Unknown only where there is no socket; those share one limit.
    let peer = peer.unwrap_or(IpAddr::from([0, 0, 0, 0])).to_canonical();
    if !policy.trusted_proxies.contains(&peer) {
        return peer;
    }
    let forwarded = request.headers().get_all(FORWARDED_FOR).iter().next_back().and_then(|value| value.to_str().ok());
    forwarded.and_then(|list| list.rsplit(',').next()).and_then(|last| last.trim().parse().ok()).unwrap_or(peer)
}

/// Around every route: CORS, and no answer in any cache.
async fn guard(State(door): State<Door>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.filter(|origin| door.desk.live().policy.origins.allow(origin));
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response = if is_preflight { preflight(allowed.is_some()) } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Link, Retry-After"));
    }
    response
}

fn preflight(is_allowed: bool) -> Response {
    if !is_allowed {
        return StatusCode::FORBIDDEN.into_response();
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE);
    response
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "Could not write an answer");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl Denied {
    fn label(&self) -> &'static str {
        match self {
            Self::Credential(_) => "credential",
            Self::Rate { reason, .. } => reason,
            Self::Request(_) => "request",
            Self::NoRelay => "no_relay",
        }
    }

    fn into_response(self) -> Response {
        let (status, code, hint) = match self {
            Self::Credential(_) => {
                (StatusCode::UNAUTHORIZED, "unauthorized", "show an API key or a token of signalling")
            }
            Self::Rate { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "wait as long as Retry-After says"),
            Self::Request(_) => (StatusCode::BAD_REQUEST, "bad_request", "correct the query"),
            Self::NoRelay => (StatusCode::SERVICE_UNAVAILABLE, "no_relay", "try again in some seconds"),
        };
        let body = Refusal { error: RefusalBody { code, message: self.to_string(), hint } };
        let mut response = json(status, &body);
        let headers = response.headers_mut();
        match self {
            Self::Credential(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // Rounded up: a client that comes back then is served.
            Self::Rate { after, .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs() + 1));
            }
            Self::NoRelay => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::Request(_) => {}
        }
        response
    }
}

#[derive(Serialize)]
struct Refusal {
    error: RefusalBody,
}

#[derive(Serialize)]
struct RefusalBody {
    code: &'static str,
    message: String,
    hint: &'static str,
}

#[cfg(test)]
mod tests;
