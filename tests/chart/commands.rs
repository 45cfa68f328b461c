//! The commands in the documentation, run as written.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Output},
};

use harness::{
    Crds, Identity, Stack,
    control_plane::binary,
    kinds, objects,
    stack::{resource, root},
    wait::until_asked,
};
use kube::api::{Api, DynamicObject, ListParams};

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

/// A shell with `kthena-keda`, kubectl and helm on its PATH, and `kthena-keda` as a kubectl plugin.
struct Shell {
    programs: PathBuf,
    kubeconfig: PathBuf,
}

impl Shell {
    fn new(stack: &Stack) -> Self {
        let programs = stack.control_plane.folder.join("programs");
        fs::create_dir_all(&programs).unwrap();
        for (program, name) in [
            (PathBuf::from(BINARY), "kthena-keda"),
            (PathBuf::from(BINARY), "kubectl-kthena_keda"),
            (binary("kubectl"), "kubectl"),
            (binary("helm"), "helm"),
        ] {
            symlink(program, programs.join(name)).unwrap();
        }
        Self { programs, kubeconfig: stack.control_plane.kubeconfig(&Identity::Admin) }
    }

    fn run(&self, line: &str) -> Output {
        let path = format!("{}:{}", self.programs.display(), env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", line])
            .current_dir(root())
            .env("PATH", path)
            .env("KUBECONFIG", &self.kubeconfig);
        command.env("HOME", &self.programs).output().unwrap()
    }

    fn succeeds(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Commands in the `console` blocks of a page, without comments. Continued lines are joined, and a
/// here-document stays with its command.
fn commands(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let blocks = text
        .split("```console\n")
        .skip(1)
        .filter_map(|block| block.split_once("```").map(|(block, _)| block.to_owned()));
    let lines = blocks.map(|block| block.replace("\\\n", " ")).collect::<String>();
    let (mut commands, mut in_document) = (Vec::<String>::new(), false);
    for line in lines.lines() {
        if in_document {
            in_document = line != "YAML";
            commands.last_mut().unwrap().extend(["\n", line]);
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            in_document = line.ends_with("<<'YAML'");
            commands.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    commands
}

/// Prefixes of commands that need running pods or a compiler; the tests of the release and of the image run
/// them.
const SKIPPED: [&str; 6] =
    ["kubectl -n kthena-keda rollout", "kubectl wait", "cargo ", "install ", "make ", "docker "];

#[tokio::test]
async fn commands_of_the_readme_and_the_quick_start_work() {
    let stack = Stack::bare(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let shell = Shell::new(&stack);
    let mut quick_start = commands("docs/quick-start.md");
    let readme: Vec<String> =
        commands("README.md").into_iter().map(|line| line.replace(" NAME ", " chat ")).collect();
    let readme: Vec<String> =
        readme.into_iter().filter(|line| !SKIPPED.iter().any(|prefix| line.starts_with(prefix))).collect();
    // The first example needs no cluster, and no compiler if the binary exists.
    let example = commands("README.md").into_iter().find_map(|line| {
        line.strip_prefix("cargo run -- render ").map(|rest| format!("kthena-keda render {rest}"))
    });
    assert!(shell.succeeds(&example.expect("a first example")).contains("kind: ScaledObject"));
    assert_eq!(
        readme[0], quick_start[0],
        "the README and the quick start install the chart with the same command"
    );
    assert!(
        readme[0].starts_with("helm install")
            && shell.succeeds(&readme[0]).contains("kubectl get scaledobjects")
    );
    // KEDA, which has no other permissions here, has exactly those that scaling needs.
    let keda = "kubectl auth can-i --as system:serviceaccount:keda:keda-operator";
    for (permission, is_granted) in [
        ("get modelservings.workload.serving.volcano.sh", true),
        ("get modelservings.workload.serving.volcano.sh --subresource=scale", true),
        ("update modelservings.workload.serving.volcano.sh --subresource=scale", true),
        ("update modelservings.workload.serving.volcano.sh", false),
        ("patch modelservings.workload.serving.volcano.sh --subresource=status", false),
    ] {
        assert_eq!(shell.run(&format!("{keda} {permission}")).status.success(), is_granted, "{permission}");
    }
    let operator = stack.start_operator(&harness::Settings::new(BINARY));
    let scaled: Api<DynamicObject> = Api::all_with(stack.client().await, &kinds::scaled_object());
    let scaled_objects = async || scaled.list(&ListParams::default()).await.unwrap().items.len();
    // Of the two ways to uninstall, this test follows the one that deletes the ScaledObjects.
    let uninstall = quick_start.iter().position(|line| line.starts_with("helm uninstall")).unwrap();
    quick_start.remove(uninstall);
    for (i, line) in quick_start
        .iter()
        .enumerate()
        .skip(1)
        .filter(|(_, line)| !SKIPPED.iter().any(|prefix| line.starts_with(prefix)))
    {
        let line = line.replace(" NAME ", " chat ");
        if line.contains(" explain") {
            let output = shell.run(&line);
            assert!(
                matches!(output.status.code(), Some(0 | 3 | 4)),
                "{line}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(
                String::from_utf8_lossy(&output.stdout).contains("chat"),
                "{line}: {}",
                String::from_utf8_lossy(&output.stdout)
            );
            continue;
        }
        let output = shell.succeeds(&line);
        if line == "kubectl get scaledobjects" {
            until_asked("one ScaledObject exists", scaled_objects, |count| *count == 1).await;
            readme.iter().skip(1).for_each(|line| drop(shell.succeeds(line)));
        }
        if i == uninstall {
            assert!(output.contains("annotated"), "{line}: {output}");
            until_asked("no ScaledObject exists", scaled_objects, |count| *count == 0).await;
        }
    }
    drop(operator);
}

/// Helm never upgrades a CRD that an earlier release of the chart installed.
#[tokio::test]
async fn the_documented_command_upgrades_the_crd() {
    let stack = Stack::bare(&[]).await;
    let (shell, client) = (Shell::new(&stack), stack.client().await);
    let mut old =
        objects::read(&root().join("crds/autoscaling.kthena.io_autoscalingprofiles.yaml")).remove(0);
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    *old.pointer_mut(&format!("{schema}/description")).unwrap() = "An older text.".into();
    old.pointer_mut(&format!("{schema}/properties")).unwrap().as_object_mut().unwrap().remove("fallback");
    objects::apply_as(&client, "helm", old).await;
    let upgrading = commands("docs/upgrading.md");
    let line = upgrading.iter().find(|line| line.starts_with("kthena-keda crds")).expect("the command");
    shell.succeeds(line);
    let crds: Api<DynamicObject> = Api::all_with(
        client,
        &resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"),
    );
    let found =
        serde_json::to_value(crds.get("autoscalingprofiles.autoscaling.kthena.io").await.unwrap()).unwrap();
    assert!(found.pointer(&format!("{schema}/properties/fallback")).is_some());
    // The API server publishes the new schema after a moment.
    let is_explained = async || shell.run("kubectl explain asp.spec.fallback").status.success();
    until_asked("kubectl explains the field", is_explained, |explained| *explained).await;
    // Kustomize installs over the CRD, and a second time without an error.
    for _ in 0..2 {
        shell.succeeds("kubectl apply --server-side --force-conflicts -k config");
    }
}

#[test]
fn completion_and_manual_pages_cover_every_command() {
    let print = |arguments: &[&str]| {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        assert!(print(&["completion", shell]).contains("explain"), "{shell}");
    }
    assert!(print(&["man"]).contains("explain"));
    assert!(print(&["man", "run"]).contains("watch\\-namespaces"));
    assert!(!Command::new(BINARY).args(["man", "dance"]).output().unwrap().status.success());
}
