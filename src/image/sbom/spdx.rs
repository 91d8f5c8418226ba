//! SPDX 2.3 as JSON (spdx-spec v2.3, chapters 6 to 11).

use serde_json::{Value, json};
use sha1::Digest as _;

use super::{Content, Materials, sorted};

pub(super) fn document(materials: &Materials<'_>) -> Value {
    let image = "SPDXRef-Image";
    let (mut packages, mut files, mut relationships) = (Vec::new(), Vec::new(), Vec::new());
    let relate = |from: &str, kind: &str, to: &str| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
    relationships.push(relate("SPDXRef-DOCUMENT", "DESCRIBES", image));
    let none = Vec::new();
    let own = |index: Option<usize>| materials.files.get(&index).unwrap_or(&none);
    let reference = format!("pkg:oci/{}@sha256%3A{}", materials.name, materials.manifest.hex());
    packages.push(package(&Package {
        id: image,
        name: materials.name,
        version: &materials.manifest.to_string(),
        purl: &reference,
        checksums: json!([{"algorithm": "SHA256", "checksumValue": materials.manifest.hex()}]),
        purpose: "CONTAINER",
        files: own(None),
    }));
    for (index, part) in materials.parts.iter().enumerate() {
        let id = format!("SPDXRef-Package-{index}");
        let mut checksums = vec![json!({"algorithm": "SHA256", "checksumValue": part.sha256.hex()})];
        checksums.extend(part.sha512.iter().map(|sha512| json!({"algorithm": "SHA512", "checksumValue": sha512})));
        packages.push(package(&Package {
            id: &id,
            name: part.name,
            version: part.version,
            purl: &part.purl,
            checksums: checksums.into(),
            purpose: "INSTALL",
            files: own(Some(index)),
        }));
        relationships.push(relate(image, "CONTAINS", &id));
    }
    for (index, contents) in &materials.files {
        let owner = index.map_or(image.to_owned(), |index| format!("SPDXRef-Package-{index}"));
        for content in contents {
            let id = format!("SPDXRef-File-{}", files.len());
            relationships.push(relate(&owner, "CONTAINS", &id));
            files.push(json!({
                "SPDXID": id,
                "fileName": format!("./{}", content.path),
                "checksums": [
                    {"algorithm": "SHA1", "checksumValue": hex::encode(content.sha1)},
                    {"algorithm": "SHA256", "checksumValue": content.sha256.hex()},
                ],
                "licenseConcluded": "NOASSERTION",
                "licenseInfoInFiles": ["NOASSERTION"],
                "copyrightText": "NOASSERTION",
            }));
        }
    }
    // Chapter 6.5: the address need not exist, but nothing else may have it; the digest sees to that.
    let namespace = format!("https://spdx.org/spdxdocs/{}-{}", materials.name, materials.manifest.hex());
    sorted(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": materials.name,
        "documentNamespace": namespace,
        "creationInfo": {
            "created": materials.time(),
            "creators": [concat!("Tool: sandbox-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "files": files,
        "relationships": relationships,
    }))
}

struct Package<'a> {
    id: &'a str,
    name: &'a str,
    version: &'a str,
    purl: &'a str,
    checksums: Value,
    purpose: &'a str,
    files: &'a [Content<'a>],
}

fn package(package: &Package<'_>) -> Value {
    let mut value = json!({
        "SPDXID": package.id,
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": !package.files.is_empty(),
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": package.purpose,
        "checksums": package.checksums,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package.purl,
        }],
    });
    if !package.files.is_empty() {
        value["packageVerificationCode"] = json!({"packageVerificationCodeValue": verification(package.files)});
    }
    value
}

/// Chapter 7.9: SHA-1 of the sorted SHA-1 digests of all files, as hexadecimal digits without a separator.
fn verification(files: &[Content<'_>]) -> String {
    let mut digests: Vec<String> = files.iter().map(|file| hex::encode(file.sha1)).collect();
    digests.sort();
    hex::encode(sha1::Sha1::digest(digests.concat()))
}
