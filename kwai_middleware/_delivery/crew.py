class Crew:
    def __init__(self, new, most=4):
        self.new = new
        self.s = new()

    def send_all(self, entries, timeout):
        return [self.s.send(e, timeout) for e in entries]

    def close(self):
        self.s.close()
