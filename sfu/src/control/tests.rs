use axum::body::{Body, to_bytes};
use axum::http::Request as HttpRequest;
use tower::ServiceExt;

use super::*;

const TOKEN: &str = "0123456789abcdef";

async fn ask(path: &str, authorization: Option<&str>) -> (StatusCode, String) {
    let (inputs, _waiting) = mpsc::channel(1);
    let port = ControlPort::new(Secret::from(TOKEN), inputs, ControlMeters::default());
    let mut request = HttpRequest::builder().uri(path);
    if let Some(value) = authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    let response = port.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 4096).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn nothing_is_done_without_the_token() {
    for wrong in [None, Some("Bearer "), Some("Bearer 0123456789abcdeX"), Some("Basic 0123456789abcdef")] {
        let (status, body) = ask("/v1/control", wrong).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let error: ControlError = serde_json::from_str(&body).unwrap();
        assert!(error.code == "unauthorized" && !error.hint.is_empty());
    }
}

#[tokio::test]
async fn only_a_websocket_at_its_one_path_is_served() {
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(ask("/v1/control", Some(&bearer)).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(ask("/", Some(&bearer)).await.0, StatusCode::NOT_FOUND);
}

#[test]
fn what_is_not_a_request_is_answered_by_its_id() {
    let refusal = |text: &str| {
        let (id, error) = parse(text).unwrap_err();
        assert!(!error.message.is_empty() && !error.hint.is_empty(), "{text}");
        (id, error.code)
    };
    assert_eq!(refusal(""), (0, "bad_request".to_owned()));
    assert_eq!(refusal("{"), (0, "bad_request".to_owned()));
    assert_eq!(refusal("[1,2]"), (0, "bad_request".to_owned()));
    assert_eq!(refusal(r#"{"op":"snapshot"}"#), (0, "bad_request".to_owned()));
    assert_eq!(refusal(r#"{"id":-1,"op":"snapshot"}"#), (0, "bad_request".to_owned()));
    assert_eq!(refusal(r#"{"id":7}"#), (7, "bad_request".to_owned()));
    assert_eq!(refusal(r#"{"id":7,"op":"leave"}"#), (7, "bad_request".to_owned()));
    assert_eq!(refusal(r#"{"id":7,"op":"dance"}"#), (7, "unknown_op".to_owned()));
}

#[test]
fn deeply_nested_json_is_refused_and_not_followed() {
    let text = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse(&text).unwrap_err().1.code, "bad_request");
}

#[test]
fn every_operation_of_the_protocol_is_known_by_name() {
    for name in OPERATIONS {
        let text = format!(r#"{{"id":1,"op":"{name}"}}"#);
        assert!(!matches!(parse(&text), Err((_, error)) if error.code == "unknown_op"));
        let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let fixture = fixture.join("control/fixtures/request").join(format!("{name}.json"));
        parse(&std::fs::read_to_string(fixture).unwrap()).unwrap();
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_request_or_is_refused(text in ".{0,200}") {
        if let Err((_, error)) = parse(&text) {
            proptest::prop_assert!(!error.code.is_empty());
        }
    }

    #[test]
    fn any_change_of_a_good_request_is_a_request_or_is_refused_by_its_code(at in 0..1000_usize, byte in 0x20..0x7f_u8) {
        let mut text = include_str!("../../control/fixtures/request/join.json").as_bytes().to_vec();
        let at = at % text.len();
        text[at] = byte;
        let text = String::from_utf8(text).unwrap();
        match parse(&text) {
            Ok(Request { op: sfu_control::Operation::Join(join), .. }) => {
                // Never a panic; a refusal has a code of its own.
                let made = crate::translate::join(&join, sfu_core::RoomId(1), sfu_core::PeerId(2));
                proptest::prop_assert!(made.map_or_else(|error| error.code.starts_with("bad_"), |made| made.peer.0 == 2));
            }
            Ok(_) => proptest::prop_assert!(false, "another operation"),
            Err((_, error)) => proptest::prop_assert!(["bad_request", "unknown_op"].contains(&error.code.as_str())),
        }
    }
}
