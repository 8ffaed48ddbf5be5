package build

import "berth/build/dockerfile"

// ofContext lists what a plan takes from the build context, as patterns of COPY.
func ofContext(p *dockerfile.Plan) []string {
	patterns := []string{}
	for _, s := range p.Stages {
		for _, st := range s.Steps {
			switch do := st.Do.(type) {
			case *dockerfile.Copy:
				for _, src := range do.Sources {
					if do.From == nil && src.Path != "" {
						patterns = append(patterns, src.Path)
					}
				}
			case *dockerfile.Run:
				for _, m := range do.Mounts {
					if m.Type == "bind" && m.From == nil {
						patterns = append(patterns, "/"+m.Source)
					}
				}
			}
		}
	}
	return patterns
}
