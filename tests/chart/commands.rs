//! The commands that the documentation names, as they stand there.

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
};
use kube::api::{Api, DynamicObject};

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

/// A shell in which our program, kubectl and helm are installed, and our program is a plugin of kubectl, too.
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
        command.args(["-euo", "pipefail", "-c", line]).current_dir(root()).env("PATH", path).env("KUBECONFIG", &self.kubeconfig);
        command.env("HOME", &self.programs).output().unwrap()
    }

    fn succeeds(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// The commands of a page's blocks that are marked as a console's, comments aside and long lines put together.
fn commands(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let blocks = text.split("```console\n").skip(1).filter_map(|block| block.split_once("```").map(|(block, _)| block.to_owned()));
    let lines = blocks.map(|block| block.replace("\\\n", " ")).collect::<String>();
    lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[tokio::test]
async fn of_the_readme_and_the_quick_start_do_what_they_say() {
    let stack = Stack::bare(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let shell = Shell::new(&stack);
    let quick_start = commands("docs/quick-start.md");
    let readme = commands("README.md");
    let helm = readme.iter().find(|line| line.starts_with("helm install")).expect("the README installs the chart");
    assert!(quick_start.contains(helm), "the README and the quick start install alike: {helm}");
    assert!(shell.succeeds(helm).contains("kubectl get scaledobjects"));
    // Nothing runs pods here.
    let _operator = stack.start_operator(&harness::Settings::new(BINARY));
    let mut ran = 0;
    for line in quick_start.iter().filter(|line| {
        line.starts_with("kubectl apply") || line.starts_with("kubectl annotate") || line.starts_with("kubectl get scaledobjects")
    }) {
        shell.succeeds(line);
        ran += 1;
    }
    assert!(ran >= 2, "{quick_start:?}");
    let scaled: Api<DynamicObject> = Api::all_with(stack.client().await, &kinds::scaled_object());
    harness::wait::until_asked(
        "there is a ScaledObject",
        async || scaled.list(&kube::api::ListParams::default()).await.unwrap().items.len(),
        |count| *count == 1,
    )
    .await;
    // As a plugin of kubectl, with a namespace as kubectl takes it.
    let line = quick_start.iter().find(|line| line.contains("kubectl kthena-keda explain")).expect("the quick start explains");
    let output = shell.run(line);
    assert!(matches!(output.status.code(), Some(0 | 3 | 4)), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("ScaledObject"), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A definition that an earlier release's chart installed, which Helm leaves as it is for ever.
#[tokio::test]
async fn the_definition_is_upgraded_by_the_command_that_says_so() {
    let stack = Stack::bare(&[]).await;
    let (shell, client) = (Shell::new(&stack), stack.client().await);
    let mut old = objects::read(&root().join("crds/autoscaling.kthena.io_autoscalingprofiles.yaml")).remove(0);
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    *old.pointer_mut(&format!("{schema}/description")).unwrap() = "An older text.".into();
    old.pointer_mut(&format!("{schema}/properties")).unwrap().as_object_mut().unwrap().remove("fallback");
    objects::apply_as(&client, "helm", old).await;
    let upgrading = commands("docs/upgrading.md");
    let line = upgrading.iter().find(|line| line.starts_with("kthena-keda crds")).expect("the command");
    shell.succeeds(line);
    let definitions: Api<DynamicObject> =
        Api::all_with(client, &resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"));
    let found = serde_json::to_value(definitions.get("autoscalingprofiles.autoscaling.kthena.io").await.unwrap()).unwrap();
    assert!(found.pointer(&format!("{schema}/properties/fallback")).is_some());
    shell.succeeds("kubectl explain asp.spec.fallback");
}

#[test]
fn shells_and_manuals_are_told_of_every_command() {
    let say = |arguments: &[&str]| {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        assert!(say(&["completion", shell]).contains("explain"), "{shell}");
    }
    assert!(say(&["man"]).contains("explain"));
    assert!(say(&["man", "run"]).contains("watch\\-namespaces"));
    assert!(!Command::new(BINARY).args(["man", "dance"]).output().unwrap().status.success());
}
