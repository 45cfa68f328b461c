module kthena-keda/tests/stack/keda-2.14

go 1.26.0

require github.com/kedacore/keda/v2 v2.14.1
