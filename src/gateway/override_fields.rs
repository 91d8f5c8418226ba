//! Header fields and query parameters by which a request asks to be taken for another one: frameworks read the method,
//! the path or the host from them in place of the request line, behind which a rule would be looking at the wrong thing.

use http::Uri;
use http::header::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

/// Fields that replace the method: those of Google's APIs, of Microsoft's and of IBM's, which Rack, Symfony, Laravel and
/// Express know too.
const METHOD_FIELDS: &[&str] = &["x-http-method-override", "x-http-method", "x-method-override"];

/// Query parameters that replace the method, of Symfony, Laravel and Express.
const METHOD_PARAMETERS: &[&str] = &["_method", "x-http-method-override", "$httpmethod"];

/// Fields that replace the path (IIS, Symfony, Zend) or the host (RFC 7239, and what came before it). A client has no use
/// for them: proxies write them, and none stands before this one.
const TARGET_FIELDS: &[&str] = &[
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded-uri",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-rewrite-url",
];

/// The methods, in upper case, that a request asks to be taken for. Each of them has to be allowed like the one in the
/// request line.
pub fn methods(headers: &HeaderMap, uri: &Uri) -> Vec<String> {
    let fields = headers.iter().filter(|(name, _)| METHOD_FIELDS.contains(&plain(name).as_str()));
    let fields = fields.map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let query = uri.query().unwrap_or_default();
    let parameters = query.split(['&', ';']).filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        METHOD_PARAMETERS.contains(&decoded(name).to_ascii_lowercase().as_str()).then(|| decoded(value))
    });
    fields.chain(parameters).map(|method| method.trim().to_ascii_uppercase()).collect()
}

/// Takes out the fields that replace the path or the host.
pub fn strip(headers: &mut HeaderMap) {
    take_out(headers, |name| TARGET_FIELDS.contains(&name));
}

/// Takes out every field whose name, as the strictest and the laxest server read it, is meant.
pub fn take_out(headers: &mut HeaderMap, meant: impl Fn(&str) -> bool) {
    let named: Vec<HeaderName> = headers.keys().filter(|name| meant(&plain(name))).cloned().collect();
    for name in named {
        headers.remove(name);
    }
}

/// The name with `_` as `-`: to a CGI program and its successors the two are one (RFC 3875 section 4.1.18).
fn plain(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// Whether the answer to a method shows the request, with what the gateway put into it (RFC 9110 section 9.3.8; `TRACK`
/// is IIS's).
pub fn shows_the_request(method: &str) -> bool {
    method.eq_ignore_ascii_case("TRACE") || method.eq_ignore_ascii_case("TRACK")
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::request::Parts;

    use super::*;

    fn methods_of(target: &str, fields: &[(&str, &str)]) -> Vec<String> {
        let parts = parts(target, fields);
        methods(&parts.headers, &parts.uri)
    }

    fn parts(target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn every_way_to_ask_for_another_method_is_known() {
        for name in ["X-HTTP-Method-Override", "X-Http-Method", "x-method-override", "X_HTTP_METHOD_OVERRIDE"] {
            assert_eq!(methods_of("/", &[(name, " delete ")]), ["DELETE"], "{name}");
        }
        for query in
            ["_method=delete", "a=b&_METHOD=DELETE", "%5fmethod=%44ELETE", "a;_method=DELETE", "$httpMethod=DELETE"]
        {
            assert_eq!(methods_of(&format!("/x?{query}"), &[]), ["DELETE"], "{query}");
        }
        assert!(methods_of("/_method=DELETE?method=DELETE", &[("method", "DELETE")]).is_empty());
    }

    #[test]
    fn takes_out_what_names_another_path_or_host_in_every_spelling() {
        let mut parts = parts("/", &[("X-Original-URL", "/admin"), ("x_rewrite_url", "/admin"), ("accept", "*/*")]);
        parts.headers.insert("forwarded", "host=other.example".parse().unwrap());
        strip(&mut parts.headers);
        assert_eq!(parts.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
