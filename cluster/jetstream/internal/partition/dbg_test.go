package partition

import "fmt"

func (s *simulation) dump(ref Ref) {
	p := Of(ref.Account, s.cfg.parts)
	for _, m := range s.log[p] {
		if !m.Records {
			continue
		}
		by, rs, _ := ReadRecords(m.Data)
		for _, r := range rs {
			switch r := r.(type) {
			case Begin:
				if r.Account == ref.Account && r.Key == ref.Key {
					fmt.Println("  ", m.Seq, m.Time.Sub(simStart), by.Node, "begin", r.After, r.Now.Sub(simStart))
				}
			case End:
				if r.Account == ref.Account && r.Key == ref.Key {
					fmt.Println("  ", m.Seq, m.Time.Sub(simStart), by.Node, "end", r.After, r.Now.Sub(simStart))
				}
			case Claim, Release:
				fmt.Printf("   %d %v %s %T\n", m.Seq, m.Time.Sub(simStart), by.Node, r)
			}
		}
	}
}
