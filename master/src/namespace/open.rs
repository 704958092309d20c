//! Open. Release is in `sessions`: it concerns what a session holds, not an inode.

use cairn_proto::{FsError, pb};

use super::{Namespace, execute::Call};

impl Namespace {
    pub(super) fn open_inode(
        &mut self,
        call: Call,
        request: &pb::Open,
    ) -> Result<pb::Opened, FsError> {
        let mut inode = self.inode(request.ino)?;
        if request.truncate {
            let now = self.now();
            self.set_size(&mut inode, 0)?;
            self.touch_data(&mut inode, now);
            self.put_inode(&inode);
        }
        let manifest = inode.row.is_regular().then(|| self.first_page(&inode)).transpose()?;
        self.sessions.hold(call.session, inode.ino);
        Ok(pb::Opened { attr: Some(inode.attr()), manifest })
    }
}
