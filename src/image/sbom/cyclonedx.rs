//! CycloneDX 1.6 as JSON (ECMA-424).

use serde_json::{Value, json};

use super::{Materials, PackageKind, sorted};

pub(super) fn document(materials: &Materials<'_>) -> Value {
    let image = format!("pkg:oci/{}@sha256%3A{}", materials.name, materials.manifest.hex());
    let mut components = Vec::new();
    for part in &materials.parts {
        let mut hashes = vec![json!({"alg": "SHA-256", "content": part.sha256.hex()})];
        hashes.extend(part.sha512.iter().map(|sha512| json!({"alg": "SHA-512", "content": sha512})));
        components.push(json!({
            "type": if part.kind == PackageKind::Npm { "application" } else { "library" },
            "bom-ref": part.purl,
            "name": part.name,
            "version": part.version,
            "purl": part.purl,
            "hashes": hashes,
        }));
    }
    for (owner, contents) in &materials.files {
        for content in contents {
            let mut file = json!({
                "type": "file",
                "bom-ref": format!("file:/{}", content.path),
                "name": format!("/{}", content.path),
                "hashes": [{"alg": "SHA-256", "content": content.sha256.hex()}],
            });
            if let Some(part) = owner.and_then(|index| materials.parts.get(index)) {
                file["properties"] = json!([{"name": "sandbox:package", "value": part.purl}]);
            }
            components.push(file);
        }
    }
    let all: Vec<&str> = materials.parts.iter().map(|part| part.purl.as_str()).collect();
    sorted(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial(&materials.manifest.hex()),
        "version": 1,
        "metadata": {
            "timestamp": materials.time(),
            "tools": {"components": [
                {"type": "application", "name": "sandbox", "version": env!("CARGO_PKG_VERSION")},
            ]},
            "component": {
                "type": "container",
                "bom-ref": image,
                "name": materials.name,
                "version": materials.manifest.to_string(),
                "purl": image,
                "hashes": [{"alg": "SHA-256", "content": materials.manifest.hex()}],
            },
        },
        "components": components,
        "dependencies": [{"ref": image, "dependsOn": all}],
    }))
}

/// A UUID out of the digest: version 8, variant 10 (RFC 9562, section 5.8).
fn serial(hex: &str) -> String {
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32]);
    format!("urn:uuid:{a}-{b}-8{c}-8{d}-{e}")
}
