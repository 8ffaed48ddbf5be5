package build

import (
	"testing"

	"berth/internal/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }
