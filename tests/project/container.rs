//! The image of a container and the manifests of Kubernetes: what they give is what the server takes.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::documents::{between, read};
use support::binary;

const MANIFEST: &str = "contrib/kubernetes/socks5d.yaml";
const SECRET: &str = "contrib/kubernetes/secret.yaml";
const COMPOSE: &str = "contrib/container/compose.yaml";
const CONTAINERFILE: &str = "contrib/container/Containerfile";
const CONFIGURATION: &str = "contrib/container/socks5d.conf";

/// A text below a key of YAML (`key: |`), without its indentation.
fn block(text: &str, key: &str) -> String {
    let head = format!("{key}: |\n");
    let (before, rest) = text.split_once(&head).unwrap_or_else(|| panic!("no {key}"));
    let indent = before.lines().last().map_or(0, str::len) + 2;
    let inside = |line: &&str| line.len() - line.trim_start().len() >= indent;
    rest.lines().take_while(inside).map(|line| format!("{}\n", &line[indent..])).collect()
}

/// What `--check-config` says of arguments, as far as they are no good.
fn check(folder: &Path, arguments: &[String]) -> String {
    let mut command = Command::new(binary("socks5d"));
    command.args(arguments).arg("--check-config").current_dir(folder);
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

/// The number behind a text.
fn number(text: &str, before: &str) -> u64 {
    between(text, before, "\n")[0].parse().expect("a number")
}

#[test]
fn the_arguments_and_files_of_the_manifest_are_good() {
    let (manifest, secret) = (read(MANIFEST), read(SECRET));
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = between(&manifest, "            - --", "\n");
    assert!(arguments.len() >= 6, "{arguments:?}");
    let mut here: Vec<String> = Vec::new();
    for argument in arguments {
        let mut argument = format!("--{argument}");
        for (path, content) in [
            ("/run/secrets/socks5d/users", block(&secret, "users")),
            ("/etc/socks5d-rules/rules", block(&manifest, "rules")),
        ] {
            let file = folder.path().join(path.rsplit('/').next().expect("a name"));
            fs::write(&file, content).expect("written");
            argument = argument.replace(path, file.to_str().expect("text"));
        }
        here.push(argument);
    }
    assert_eq!(check(folder.path(), &here), "");
}

/// A pod that closes down is out of its Service before it refuses a connection, and is not killed before its grace is
/// over: the server has 2 s more for its administrators, and 1 s for its logs.
#[test]
fn the_times_of_the_manifest_fit() {
    let manifest = read(MANIFEST);
    let (drain_wait, grace) = (number(&manifest, "--drain-wait="), number(&manifest, "--grace="));
    assert!(number(&manifest, "terminationGracePeriodSeconds: ") > drain_wait + grace + 3);
    let (_, readiness) = manifest.split_once("readinessProbe:").expect("it is there");
    let probes = number(readiness, "periodSeconds: ") * number(readiness, "failureThreshold: ");
    assert!(drain_wait > probes, "the last probe is no later than the end of the wait");
    let compose = read(COMPOSE);
    let stop = between(&compose, "stop_grace_period: ", "s\n")[0].parse::<u64>().expect("seconds");
    let grace = between(&compose, "\"--grace\", \"", "\"")[0].parse::<u64>().expect("seconds");
    assert!(stop > grace + 3);
}

#[test]
fn the_manifest_confines_the_server() {
    let manifest = read(MANIFEST);
    for line in [
        "automountServiceAccountToken: false",
        "runAsNonRoot: true",
        "runAsUser: 65532",
        "seccompProfile: { type: RuntimeDefault }",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "capabilities: { drop: [ALL] }",
        "httpGet: { path: /healthz, port: http }",
        "httpGet: { path: /readyz, port: http }",
    ] {
        assert_eq!(manifest.lines().filter(|read| read.trim() == line).count(), 1, "{line}");
    }
}

/// Also without the rules of a package, what listens on loopback of the container stays closed.
#[test]
fn the_image_has_a_good_configuration_and_is_confined() {
    let (file, configuration) = (read(CONTAINERFILE), read(CONFIGURATION));
    for line in [
        "USER 65532:65532",
        r#"ENTRYPOINT ["/usr/bin/socks5d", "--config", "/etc/socks5d/socks5d.conf"]"#,
    ] {
        assert!(file.lines().any(|read| read == line), "{line}");
    }
    assert!(file.contains(r#" CMD ["/usr/bin/client", "-q", "--", "PING"]"#));
    assert!(configuration.lines().any(|line| line == "local-for nobody"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIGURATION);
    let arguments = [format!("--config={}", path.display())];
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(check(folder.path(), &arguments), "");
}

#[test]
fn the_image_has_the_version() {
    let image = concat!("socks5d:", env!("CARGO_PKG_VERSION"));
    for name in [MANIFEST, COMPOSE, "README.md"] {
        assert!(read(name).contains(image), "{name}: {image}");
    }
}
