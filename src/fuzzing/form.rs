//! Form and JSON of the API's calls.

use super::assert_is_readable;
use crate::control::commandline::repeated_name;
use crate::control::form::Form;
use crate::failure;
use crate::mapping::{Request, Terms, Wanted};
use serde_json::{Value, json};

/// An answer that says no, bytes. What was wrong is quoted in it, but not at length.
const EXPLANATION: usize = 2048;

pub fn body(bytes: &[u8]) {
    let form = Form(bytes);
    for name in ["mappingid", "id", "command", "passkey"] {
        match form.require(name, "something") {
            Ok(value) => assert_eq!(Some(value), form.get(name)),
            Err(error) => assert_is_explained(&error.to_string()),
        }
    }
    if let Some(params) = form.get("params") {
        assert!(repeated_name(&params).is_none_or(|name| params.matches(name).count() > 1), "{params:?}");
    }
    match form.mapping() {
        Ok(json) => mapping(&json),
        Err(error) => assert_is_explained(&error.to_string()),
    }
}

/// The same mapping however it is sent, and if it is asked for in other words.
fn mapping(json: &Value) {
    let request = Request::from_json(json);
    let text = json.to_string();
    let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let encoded = format!("mapping={encoded}");
    let again = Form(encoded.as_bytes()).mapping().expect("JSON that was read once");
    match (Request::from_json(&again), request) {
        (Ok(again), Ok(request)) => {
            assert_eq!(again, request);
            assert_eq!(Request::from_json(&written(&request)), Ok(request));
        }
        (Err(_), Err(error)) => assert_is_explained(&error.to_string()),
        (again, request) => panic!("{request:?} became {again:?}"),
    }
}

fn written(request: &Request) -> Value {
    let absence = |terms: &Terms| terms.absence.map_or(0, |absence| absence.as_millis() as u64);
    let mut written = match &request.kind {
        Wanted::Public(terms) => json!({
            "type": "public", "maxconnections": terms.max_connections, "heartbeatabsencethreshold": absence(terms),
        }),
        Wanted::Private([first, second]) => json!({
            "type": "private",
            "maxconnectionsport1": first.max_connections, "heartbeatabsencethresholdport1": absence(first),
            "maxconnectionsport2": second.max_connections, "heartbeatabsencethresholdport2": absence(second),
        }),
    };
    let fields = written.as_object_mut().expect("an object");
    fields.extend(request.options.to_fields());
    for (key, port) in ["port1", "port2"].into_iter().zip(request.ports) {
        fields.extend(port.map(|port| (key.to_owned(), json!(port))));
    }
    written
}

fn assert_is_explained(reason: &str) {
    assert_is_readable(reason);
    let answer = failure::body("Bad Request", reason);
    assert!(answer.len() < EXPLANATION, "{} bytes: {answer}", answer.len());
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["errormessage"], reason);
}
