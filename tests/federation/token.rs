//! What an issuer does with a sandbox's identity: it finds the key by its name in the published document, verifies the
//! signature, and looks at every claim before it believes one (RFC 7523, section 3).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::{Value, json};

/// The claims of a token that is good, or why it is not.
pub(crate) fn verify(token: &str, jwks: &Value, issuer: &str, audience: &str) -> Result<Value, &'static str> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else { return Err("it has not three parts") };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "it is not base64url");
    let parse = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).map_err(|_| "it is not JSON");
    let head = parse(decode(header)?)?;
    if head["alg"] != "RS256" || head["typ"] != "JWT" {
        return Err("it is signed in another way");
    }
    let keys = jwks["keys"].as_array().ok_or("there are no keys")?;
    let key = keys.iter().find(|key| key["kid"] == head["kid"]).ok_or("nobody published its key")?;
    let part = |name: &str| decode(key[name].as_str().unwrap_or_default());
    RsaPublicKeyComponents { n: part("n")?, e: part("e")? }
        .verify(&RSA_PKCS1_2048_8192_SHA256, format!("{header}.{claims}").as_bytes(), &decode(signature)?)
        .map_err(|_| "its signature is wrong")?;
    let claims = parse(decode(claims)?)?;
    let now = Timestamp::now().as_second();
    let number = |name: &str| claims[name].as_i64().ok_or("a time is missing");
    if claims["iss"] != issuer {
        return Err("somebody else issued it");
    }
    if claims["aud"] != json!(audience) {
        return Err("it is for somebody else");
    }
    if number("iat")? > now || number("nbf")? > now || number("exp")? <= now || number("exp")? > now + 600 {
        return Err("it is not the time for it");
    }
    if claims["jti"].as_str().is_none_or(|id| id.len() < 32) {
        return Err("it has no name of its own");
    }
    Ok(claims)
}
